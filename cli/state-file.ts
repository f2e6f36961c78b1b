import { lstat, readdir, readFile, unlink } from "node:fs/promises";
import { homedir, hostname } from "node:os";
import { join, resolve } from "node:path";
import { z } from "zod";
import { parseJson } from "../release/json";
import { isRunning } from "./run";

/** A stack whose state Pulumi keeps in a folder, by its `file://` backend. */
export interface StateFolder {
  /** The backend's URL, as `pulumi whoami` prints it. */
  readonly url: string;
  /** The folder that Pulumi runs in: a relative URL begins there. */
  readonly folder: string;
  readonly project: string;
  readonly stack: string;
}

const Lock = z.object({ hostname: z.string(), username: z.string(), pid: z.number() });

/**
 * Whether Pulumi could not read a stack's state, and so has not begun. Its file backend writes the
 * state at once, but empties `STACK.json.attrs` before it writes that; in between, all readers fail
 * (https://github.com/google/go-cloud/blob/master/blob/fileblob/attrs.go).
 */
export function isUnreadable(output: string): boolean {
  return /^error: failed to load checkpoint: .*\bEOF$/m.test(output) && !/^Updating /m.test(output);
}

/**
 * Removes a `.attrs` file that was left empty as its writer was killed, for good: Pulumi needs none.
 * A file with content stays, and so does each file of a stack that a living run may be writing.
 * @returns what was done, or why not, for people; `undefined` where no such file is empty.
 */
export async function removeEmptyAttributes(
  state: StateFolder,
): Promise<{ readonly isRemoved: boolean; readonly said: string } | undefined> {
  const { url, folder, project, stack } = state;
  if (!url.startsWith("file://")) return undefined;
  const [path = ""] = url.slice("file://".length).split("?");
  const root = join(resolve(folder, path.replace(/^~(?=\/|$)/, homedir())), ".pulumi");
  // Stacks of Pulumi before 3.61 have no folder for their project.
  for (const [stacks, locks] of [
    [join(root, "stacks", project), join(root, "locks/organization", project, stack)],
    [join(root, "stacks"), join(root, "locks", stack)],
  ] as const) {
    for (const extension of ["", ".gz", ".zst"]) {
      const file = join(stacks, `${stack}.json${extension}.attrs`);
      if (!(await isEmpty(file))) continue;
      const holder = await holderOf(locks);
      if (holder !== undefined) {
        const text = `${stack}: Pulumi cannot read the state, as ${file} is empty, and ${holder} has the stack's lock`;
        return {
          isRemoved: false,
          said: `${text}. Once that run has ended, remove both files, and run the same command again.`,
        };
      }
      // Another command may have removed it, and its run may have written it since.
      if (!(await isEmpty(file)) || !(await isDone(unlink(file)))) continue;
      const text = `${stack}: removed ${file}, which a killed run of Pulumi had left empty: Pulumi could not read the state beside it`;
      return {
        isRemoved: true,
        said: `${text}. With \`?metadata=skip\` after the backend's URL, it writes no such file.`,
      };
    }
  }
  return undefined;
}

async function isEmpty(file: string): Promise<boolean> {
  const found = await lstat(file).catch(() => undefined);
  return found?.isFile() === true && found.size === 0;
}

function isDone(action: Promise<unknown>): Promise<boolean> {
  return action.then(
    () => true,
    () => false,
  );
}

/** The run that has a stack's lock, unless it was killed on this machine: its lock file and its name. */
async function holderOf(locks: string): Promise<string | undefined> {
  for (const name of await readdir(locks).catch(() => [])) {
    if (!name.endsWith(".json")) continue;
    const file = join(locks, name);
    const text = await readFile(file, "utf8").catch(() => "");
    const lock = Lock.safeParse(parseJson(text)).data;
    if (lock?.hostname === hostname() && !(await isRunning(lock.pid, "pulumi"))) continue;
    const who =
      lock === undefined ? "a run" : `${lock.username}@${lock.hostname}, pid ${lock.pid},`;
    return `${who} (${file})`;
  }
  return undefined;
}
