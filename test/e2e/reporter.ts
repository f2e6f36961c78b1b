import { appendFileSync } from "node:fs";
import { basename } from "node:path";
import Mocha, { type MochaOptions, type Runner, type Suite } from "mocha";

/** How the tests of one file went. */
export interface FileResult {
  /** `path` for `path.test.ts`. */
  readonly file: string;
  readonly seconds: number;
  readonly passing: number;
  readonly failing: number;
  readonly pending: number;
}

/** The variable with the path of the file that results go to, one JSON object a line. */
export const RESULTS = "E2E_RESULTS";

/** Prints what mocha's `spec` prints, and writes a result for each file where `run.ts` asks for it. */
export default class FileReporter extends Mocha.reporters.Spec {
  constructor(runner: Runner, options: MochaOptions) {
    super(runner, options);
    const to = process.env[RESULTS];
    if (to === undefined) return;
    const none = { seconds: 0, passing: 0, failing: 0, pending: 0 };
    const results = new Map<string, { -readonly [key in keyof FileResult]: FileResult[key] }>();
    let current = { file: "", ...none };
    let began = 0;
    // A file's suites are the children of mocha's root suite; hooks run between these two events.
    const isOfFile = ({ parent }: Suite) => parent?.root === true;
    runner.on("suite", (suite) => {
      if (!isOfFile(suite)) return;
      began = Date.now();
      const file = basename(suite.file ?? "", ".test.ts");
      current = results.get(file) ?? { file, ...none };
      results.set(file, current);
    });
    runner.on("suite end", (suite) => {
      if (isOfFile(suite)) current.seconds += (Date.now() - began) / 1000;
    });
    runner.on("pass", () => (current.passing += 1));
    runner.on("fail", () => (current.failing += 1));
    runner.on("pending", () => (current.pending += 1));
    runner.on("end", () => {
      for (const result of results.values()) appendFileSync(to, `${JSON.stringify(result)}\n`);
    });
  }
}
