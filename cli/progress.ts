import { plain } from "../release/plain-text";

/**
 * Shows that something is going on: at a terminal its last line, otherwise every line. An action
 * that ends with `succeeded: false` is shown as failed. The action runs, and once, also where it
 * cannot be shown.
 */
export async function showProgress<T>(
  title: string,
  action: (show: (line: string) => void) => Promise<T>,
): Promise<T> {
  let run: Promise<T> | undefined;
  const runOnce = (show: (line: string) => void) => (run ??= action(show));
  await display(title, runOnce).catch(() => undefined);
  return runOnce(() => undefined);
}

async function display(
  title: string,
  action: (show: (line: string) => void) => Promise<unknown>,
): Promise<void> {
  const { Listr, PRESET_TIMER } = await import("listr2");
  const list = new Listr(
    {
      title: plain(title),
      task: async (_, task) => {
        const began = Date.now();
        const isDone = await action((line) => (task.output = plain(line))).then(
          (result) => !hasFailed(result),
          () => false,
        );
        // The reason is the caller's to print, once.
        if (!isDone) throw new Error(`after ${Math.round((Date.now() - began) / 1000)} s`);
      },
    },
    {
      exitOnError: false,
      rendererOptions: { timer: PRESET_TIMER },
      fallbackRendererOptions: { timer: PRESET_TIMER },
      fallbackRenderer: "simple",
      // Pulumi is told first, and ends what it has begun.
      registerSignalListeners: false,
    },
  );
  await list.run();
}

/** Shows nothing, for the next program. */
export async function showNothing<T>(
  _title: string,
  action: (show: (line: string) => void) => Promise<T>,
): Promise<T> {
  return action(() => {});
}

function hasFailed(value: unknown): boolean {
  return typeof value === "object" && value !== null && "succeeded" in value && !value.succeeded;
}
