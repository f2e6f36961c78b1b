import { createInterface } from "node:readline/promises";
import { Refusal } from "../ledger/refusal";
import { printable } from "./text";

/** Whether a person can be asked. */
export function isTerminal(): boolean {
  return process.stdin.isTTY && process.stdout.isTTY;
}

/**
 * @param flags what is given where nobody is to be asked
 * @throws Refusal where nobody can be.
 */
export function needTerminal(where: string, flags: string): void {
  if (isTerminal()) return;
  throw new Refusal({
    where,
    property: flags,
    value: "not given",
    expected: "it, or a terminal to ask at",
    fix: `Give ${flags}`,
  });
}

/** What somebody answers at the terminal. */
export async function answer(question: string): Promise<string> {
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  try {
    return (await terminal.question(printable(question))).trim();
  } finally {
    terminal.close();
  }
}

/** Whether somebody says yes; no, unless they do. */
export async function agrees(question: string): Promise<boolean> {
  return /^y(es)?$/i.test(await answer(`${question} [y/N] `));
}
