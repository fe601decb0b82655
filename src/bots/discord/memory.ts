/** A map that forgets its oldest entries: for what is nice to know and may be lost with the process. */
export interface Memory<T> {
  get(key: string): T | undefined;
  set(key: string, value: T): void;
  has(key: string): boolean;
  delete(key: string): void;
}

export function createMemory<T>(mostEntries: number): Memory<T> {
  const entries = new Map<string, T>();
  return {
    get: (key) => entries.get(key),
    set(key, value) {
      entries.delete(key);
      entries.set(key, value);
      for (const oldest of entries.keys()) {
        if (entries.size <= mostEntries) break;
        entries.delete(oldest);
      }
    },
    has: (key) => entries.has(key),
    delete: (key) => void entries.delete(key),
  };
}
