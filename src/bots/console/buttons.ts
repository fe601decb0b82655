/** Buttons by number: a person types !1 (or !cancel), and the token behind it never leaves the process. */
import type { ViewButton } from "../../core/view.ts";

export interface NumberedButton {
  number: number;
  button: ViewButton;
  /** The card it is on. */
  handle: string | null;
}

export interface Buttons {
  /** The same token keeps its number. */
  numberOf(token: string): number;
  /** These are what the card (or, with null, the last answer) offers now; its earlier ones are gone. */
  show(handle: string | null, buttons: readonly ViewButton[]): void;
  /** By number ("1"), or by label ("cancel"): then the newest of that name. */
  find(name: string): NumberedButton | undefined;
  list(): NumberedButton[];
}

export function createButtons(): Buttons {
  const numbers = new Map<string, number>();
  let offered: NumberedButton[] = [];
  const numberOf = (token: string): number => {
    const number = numbers.get(token) ?? numbers.size + 1;
    numbers.set(token, number);
    return number;
  };
  return {
    numberOf,
    show(handle, buttons) {
      offered = offered.filter((one) => one.handle !== handle);
      for (const button of buttons) offered.push({ number: numberOf(button.token), button, handle });
    },
    find: (name) =>
      offered.find(({ number }) => String(number) === name) ??
      offered
        .toSorted((a, b) => b.number - a.number)
        .find(({ button }) => button.label.toLowerCase() === name.toLowerCase()),
    list: () => offered.toSorted((a, b) => a.number - b.number),
  };
}
