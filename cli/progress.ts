/**
 * Shows that something is going on: at a terminal its last line, otherwise every line. An action
 * that ends with `succeeded: false` is shown as failed.
 */
export async function showProgress<T>(
  title: string,
  action: (show: (line: string) => void) => Promise<T>,
): Promise<T> {
  const { Listr, PRESET_TIMER } = await import("listr2");
  let result: { readonly value: T } | undefined;
  let thrown: unknown;
  const list = new Listr(
    {
      title,
      task: async (_, task) => {
        const began = Date.now();
        try {
          result = { value: await action((line) => (task.output = line)) };
        } catch (error) {
          thrown = error;
        }
        // The reason is the caller's to print, once.
        if (result === undefined || hasFailed(result.value)) {
          throw new Error(`after ${Math.round((Date.now() - began) / 1000)} s`);
        }
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
  if (result !== undefined) return result.value;
  throw thrown;
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
