import * as assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import * as fc from "fast-check";
import { reject } from "../../cli/approve";
import type { Context, Report } from "../../cli/context";
import { deploy } from "../../cli/deploy";
import { request } from "../../cli/request";
import { rollback } from "../../cli/rollback";
import type { Announcement } from "../../release/announcement";
import { cardBlocks, type ChangeCard } from "../../release/change-card";
import { approveLatest } from "../support/approve";
import { ToolScene } from "../support/tool";

const VARIABLES = ["PULUMI_CONFIG_PASSPHRASE", "BATON_REGISTRY_PASSWORD", "SLACK_TOKEN"] as const;

describe("a secret", () => {
  let scene: ToolScene;
  let begin: () => void;
  const environment = { ...process.env };
  before(async () => {
    scene = await ToolScene.open({
      dev: "config:\n  baton:imageTag: build-1\n",
      qa: "config:\n  baton:upstream: dev\n",
    });
    process.env["BATON_REGISTRY_USERNAME"] = "robot";
    begin = scene.keep();
  });
  after(async () => {
    for (const name of [...VARIABLES, "BATON_REGISTRY_USERNAME"]) {
      if (environment[name] === undefined) Reflect.deleteProperty(process.env, name);
      else process.env[name] = environment[name];
    }
    await scene.remove();
  });

  /** All that the tool says or keeps, but for the stack file itself. */
  const said = async (secrets: {
    readonly ciphertexts: readonly string[];
    readonly variables: readonly string[];
  }): Promise<string[]> => {
    const { ciphertexts, variables } = secrets;
    const texts: string[] = [];
    for (const [index, name] of VARIABLES.entries()) process.env[name] = variables[index];
    const context = async (): Promise<Context> => ({
      ...(await scene.context()),
      announce: async (_: string, announcement: Announcement) => {
        texts.push(JSON.stringify(announcement));
        return Promise.resolve();
      },
    });
    const run = async (command: (context: Context) => Promise<Report>) => {
      const opened = await context();
      try {
        const report = await command(opened);
        texts.push(JSON.stringify(report));
        if ("card" in report) texts.push(JSON.stringify(cardBlocks(report["card"] as ChangeCard)));
      } catch (error) {
        texts.push((error as Error).message);
      }
      texts.push(...opened.notes);
    };
    const [session = "", token = "", nested = "", next = "", password = ""] = ciphertexts;
    const file = (key: string, level: string) => `config:
  baton:upstream: dev
  baton:SESSION_KEY: { secure: ${key} }
  baton:settings: { config: { LOG_LEVEL: ${level}, DB_PASSWORD: ${password} } }
  slack:token: { secure: ${token} }
  other:list: [{ secure: ${nested} }, { name: x, secure: ${key} }]
`;
    scene.write("Pulumi.qa.yaml", file(session, "info"));
    scene.hasDeployed("dev", "build-1", "dev-1");
    await run((opened) => request(opened, "qa", { notes: "First" }));
    await run((opened) => approveLatest(opened, "qa"));
    await run((opened) => deploy(opened, "qa", { yes: true }));
    // Another secret, which fails; a rejection; and a way back.
    scene.write("Pulumi.qa.yaml", file(next, "debug"));
    scene.hasDeployed("dev", "build-2", "dev-2");
    await run((opened) => request(opened, "qa", {}));
    scene.pulumi("up-fails", "dev-2");
    await run((opened) => deploy(opened, "qa", { yes: true }));
    await run((opened) => reject(opened, "qa", { reason: "no" }));
    await run((opened) => deploy(opened, "qa", { yes: true }));
    await run((opened) => rollback(opened, "qa", { to: "dev-1" }));
    // What cannot be read, or reached.
    scene.write(
      "Pulumi.qa.yaml",
      `${file(session, "info")}  baton:approval: { secure: ${next} }\n`,
    );
    await run((opened) => request(opened, "qa", {}));
    scene.write(
      "Pulumi.qa.yaml",
      file(session, "info").replace("baton:SESSION", "- baton:SESSION"),
    );
    await run((opened) => request(opened, "qa", {}));
    scene.write("Pulumi.qa.yaml", file(session, "info"));
    scene.registry.failures = Array.from({ length: 12 }, () => 503);
    await run((opened) => request(opened, "qa", { tag: "dev-3" }));
    scene.registry.failures = [];
    const [address = ""] = variables;
    scene.git("remote", "add", "origin", `http://robot:${address}@127.0.0.1:1/baton.git`);
    await run((opened) => deploy(opened, "qa", { yes: true }));
    await run((opened) => rollback(opened, "qa", {}));

    const list = readdirSync(join(scene.folder, ".git/baton"), { recursive: true });
    const tags = scene.git("for-each-ref", "--format=%(refname) %(contents)", "refs/tags");
    return [...texts, ...scene.printed, ...list.map(String), scene.git("log", "--format=%B"), tags];
  };

  it("is in nothing that the tool says or keeps", async function () {
    this.timeout(60_000);
    const secret = fc.stringMatching(/^[A-Za-z0-9]{20,40}$/);
    const secrets = fc.record({
      ciphertexts: fc.array(secret, { minLength: 5, maxLength: 5 }),
      variables: fc.array(secret, { minLength: 3, maxLength: 3 }),
    });
    await fc.assert(
      fc.asyncProperty(secrets, async (given) => {
        begin();
        const texts = await said(given);
        assert.ok(texts.some((text) => text.includes("Baton-Request: qa")));
        assert.ok(texts.some((text) => text.includes("ImagePullBackOff")));
        assert.ok(
          texts.some((text) => text.includes('"LOG_LEVEL')) ||
            texts.some((text) => text.includes("LOG_LEVEL: info → debug")),
        );
        for (const value of Object.values(given).flat()) {
          assert.deepEqual(
            texts.filter((text) => text.includes(value)),
            [],
          );
        }
      }),
      { numRuns: 1 },
    );
  });

  it("of a run is in files that only their owner can read, and those are gone afterwards", async () => {
    begin();
    scene.write(
      "Pulumi.qa.yaml",
      "config:\n  baton:upstream: dev\n  baton:KEY: { secure: AAAB }\n",
    );
    scene.hasDeployed("dev", "build-1", "dev-1");
    await request(await scene.context(), "qa", {});
    await deploy(await scene.context(), "qa", { yes: true });
    const found = execFileSync("find", [".git/baton", "-type", "f"], {
      cwd: scene.folder,
      encoding: "utf8",
    });
    assert.match(found.trim(), /^\.git\/baton\/baton\/qa\/[^/]+\/log$/);
    assert.equal(
      execFileSync("find", [".git/baton", "-type", "f", "-perm", "/077"], {
        cwd: scene.folder,
        encoding: "utf8",
      }),
      "",
    );
  });
});
