import {
  Listr,
  ListrLogger,
  type ListrLogLevels,
  PRESET_TIMER,
  ProcessOutput,
  type ListrTask,
} from "listr2";

/** Runs tasks one after another and shows how far they are. */
export type Show = (tasks: ListrTask[]) => Promise<void>;

/** Keeps standard output free for the result. */
export const showOnStandardError: Show = async (tasks) => {
  const logger = new ListrLogger<ListrLogLevels>({
    useIcons: true,
    processOutput: new ProcessOutput(process.stderr, process.stderr),
  });
  await new Listr(tasks, {
    renderer: "simple",
    rendererOptions: { timer: PRESET_TIMER, logger },
  }).run();
};
