import { Listr, PRESET_TIMER, type ListrTask } from "listr2";

/** Runs tasks one after another and shows how far they are, for people at a terminal. */
export async function showOnTerminal(tasks: ListrTask[]): Promise<void> {
  await new Listr(tasks, {
    rendererOptions: { timer: PRESET_TIMER, collapseSubtasks: false },
    fallbackRendererOptions: { timer: PRESET_TIMER },
    fallbackRenderer: "simple",
  }).run();
}
