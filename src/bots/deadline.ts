/** Slack and Discord wait 3 s for an answer; what takes longer is acknowledged first and told afterwards. */
export const late = Symbol("late");

export async function within<T>(work: Promise<T>, budgetMs: number): Promise<T | typeof late> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<typeof late>((resolve) => {
    timer = setTimeout(() => resolve(late), budgetMs);
  });
  try {
    return await Promise.race([work, timeout]);
  } finally {
    clearTimeout(timer);
  }
}
