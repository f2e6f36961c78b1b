import { PassThrough } from "node:stream";

/**
 * Runs something at a terminal where a person gives an answer.
 * @param screen gets what is printed there
 * @param answer is asked for what the person says, once the question is there
 */
export async function atTerminal<T>(
  answer: () => string | Promise<string>,
  action: () => Promise<T>,
  screen = new PassThrough(),
): Promise<T> {
  const input = Object.assign(new PassThrough(), { isTTY: true });
  const output = Object.assign(screen, { isTTY: true, columns: 80 });
  output.once("data", () => {
    void Promise.resolve(answer()).then((text) => input.write(`${text}\n`));
  });
  const former = { stdin: process.stdin, stdout: process.stdout };
  const replace = (stdin: unknown, stdout: unknown) => {
    Object.defineProperty(process, "stdin", { value: stdin, configurable: true });
    Object.defineProperty(process, "stdout", { value: stdout, configurable: true });
  };
  replace(input, output);
  try {
    return await action();
  } finally {
    replace(former.stdin, former.stdout);
  }
}
