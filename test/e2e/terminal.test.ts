import * as assert from "node:assert/strict";
import { execa } from "execa";
import { join } from "node:path";
import { stripVTControlCharacters } from "node:util";
import { deploy } from "../../cli/deploy";
import { request } from "../../cli/request";
import { ToolScene } from "../support/tool";

const ROOT = join(__dirname, "../..");
const COMMANDS = ["status", "why stage", "history"];

const QA = "config:\n  baton:upstream: dev\n";
const STAGE = `config:
  baton:upstream: qa
  baton:versioned: true
  baton:soak: 1d
  baton:approval: { required: 2 }
`;

/** What people see, at a real terminal; needs no sandbox. */
describe("at a terminal", () => {
  let scene: ToolScene;
  before(async () => {
    scene = await ToolScene.open({ dev: "config: {}\n", qa: QA, stage: STAGE });
    scene.as("somebody.with-a-rather-long-name");
    scene.hasDeployed("dev", "build-1", "dev-1");
    await request(await scene.context(), "qa", {});
    await deploy(await scene.context(), "qa", { yes: true });
    await request(await scene.context(), "stage", { version: "v1.0.0-release.candidate.1" });
    const { ledger } = await scene.context();
    const [outcome] = await ledger.outcomes("qa");
    assert.ok(outcome);
    const reason = `${"why it failed, at length ".repeat(10)}sha256:${"0".repeat(200)}`;
    await ledger.record({ ...outcome, result: "failed", returningTo: "dev-1", reason }, new Date());
  });
  after(async () => scene.remove());

  const script = () =>
    COMMANDS.map((command) => {
      const baton = `"${process.execPath}" -r ts-node/register cli/main.ts`;
      return `${baton} --cwd "${scene.folder}" ${command}`;
    }).join("; ");
  const atTerminal = async (columns: number, variables: Readonly<NodeJS.ProcessEnv>) => {
    // A pipeline's terminal is none to Node.
    const env = { TERM: "xterm", CI: undefined, ...variables };
    const options = { cwd: ROOT, env, reject: false };
    const args = ["-qec", `stty cols ${columns}; ${script()}`, "/dev/null"];
    return (await execa("script", args, options)).stdout;
  };

  for (const columns of [80, 120]) {
    it(`no line is wider than ${columns} columns, and what is longer is not lost`, async () => {
      const output = await atTerminal(columns, { NO_COLOR: "1" });
      assert.equal(stripVTControlCharacters(output), output, "no colour where nobody wants any");
      const lines = output.split(/\r?\n/);
      const widths = lines.map((line) => Array.from(line).length);
      assert.deepEqual(
        lines.filter((_, index) => (widths[index] ?? 0) > columns),
        [],
      );
      assert.ok(Math.max(...widths) > columns - 20, "what room there is is used");
      for (const word of ["│ stage", "✔ earned", "began to go back to dev-1"]) {
        assert.ok(lines.join(" ").replace(/ +/g, " ").includes(word), `${word} in:\n${output}`);
      }
    });
  }

  it("is in colour, and only there", async () => {
    const output = await atTerminal(80, { NO_COLOR: undefined });
    assert.notEqual(stripVTControlCharacters(output), output);
    const plain = output.split(/\r?\n/).map((line) => stripVTControlCharacters(line));
    assert.deepEqual(
      plain.filter((line) => Array.from(line).length > 80),
      [],
    );
    const piped = await execa("sh", ["-c", script()], { cwd: ROOT });
    assert.equal(stripVTControlCharacters(piped.stdout), piped.stdout);
    assert.match(piped.stdout, /✔ earned/);
  });
});
