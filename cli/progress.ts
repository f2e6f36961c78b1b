import { Listr, PRESET_TIMER } from "listr2";
import type { UpResult } from "./pulumi";

/** Shows a running `up`: at a terminal its last line, otherwise every line. */
export async function showUp(
  title: string,
  up: (show: (line: string) => void) => Promise<UpResult>,
): Promise<UpResult> {
  let result: UpResult | undefined;
  let thrown: Error | undefined;
  const list = new Listr(
    {
      title,
      task: async (_, task) => {
        try {
          result = await up((line) => (task.output = line));
        } catch (error) {
          thrown = error instanceof Error ? error : new Error(String(error));
          throw thrown;
        }
        if (!result.succeeded) throw new Error(`${title}: failed`);
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
  if (result !== undefined) return result;
  throw thrown ?? new Error(`${title}: did not run`);
}
