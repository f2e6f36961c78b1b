import { transformSync } from "@swc/core";
import * as assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { findCaller, runProblems, type Caller } from "../../ledger/caller";
import { hashProgram } from "../../ledger/program-files";
import { formatParts, movedParts, parseParts, planOf, PLAN_PARTS } from "../../release/plan";
import { formatProblems } from "../../release/problem";
import { ROOT } from "../support/program";

/** A folder with files, and what belongs to it. */
class Scratch {
  readonly top = realpathSync(mkdtempSync(join(tmpdir(), "baton-test-")));

  constructor(readonly folder = "") {
    mkdirSync(join(this.top, folder), { recursive: true });
  }

  remove(): void {
    rmSync(this.top, { recursive: true });
  }

  path(name: string): string {
    return join(this.top, this.folder, name);
  }

  write(name: string, text: string): void {
    mkdirSync(dirname(this.path(name)), { recursive: true });
    writeFileSync(this.path(name), text);
  }
}

const LOCKFILE = JSON.stringify({
  packages: { "": {}, "node_modules/semver": {}, "node_modules/common": { link: true } },
});

describe("a change to the program behind an approved plan", () => {
  let scratch: Scratch;
  beforeEach(() => {
    scratch = new Scratch();
    scratch.write("Pulumi.yaml", "name: baton\nruntime: nodejs\n");
    scratch.write("index.ts", 'import "./approvals";\nimport "./release/plan";\n');
    scratch.write("approvals.ts", "export {};\n");
    scratch.write("release/plan.ts", 'import "semver";\n');
    scratch.write("package.json", "{}");
    scratch.write("package-lock.json", LOCKFILE);
    scratch.write("node_modules/semver/index.js", "");
    scratch.write("docs/page.md", "");
  });
  afterEach(() => scratch.remove());

  const hash = async () => hashProgram(join(scratch.top, scratch.folder));
  /** The files whose hashes a change moves, adds or takes away. */
  const moved = async (change: () => void): Promise<string[]> => {
    const before = await hash();
    change();
    const after = await hash();
    const all = ({ files, lockfile }: typeof before) => ({ ...files, ...lockfile });
    const [one, other] = [all(before), all(after)];
    return Object.keys({ ...one, ...other }).filter((name) => one[name] !== other[name]);
  };

  for (const name of [
    ...["approvals", "approvals.js", "approvals.json", "approvals.node", "index.js", "index.node"],
    ...[
      "release/plan",
      "release/plan.js",
      "release/plan/index.js",
      "release.js",
      "semver/index.js",
    ],
    ...["package.json", "release/package.json", "tsconfig.json", "release/tsconfig.json"],
    ...[".npmrc", ".swcrc", ".gitattributes", ".yarnrc.yml", ".pnpmfile.cjs", ".env", "Makefile"],
    ...["cli/main.ts", "pipelines/image.sh", "provider/pulumi-resource-promotion", ".github/x.yml"],
    ...[
      "release/docs/page.ts",
      "release/app.ts",
      "docs.ts",
      "app.js",
      "Pulumi.yml",
      "Pulumi.a.b.yaml",
    ],
    ...[
      "release/Pulumi.dev.yaml",
      "release/.git",
      "sdks/slack/bin/index.js",
      ".hidden/index.js",
      "PulumiPlugin.yaml",
    ],
  ]) {
    it(`moves it by ${name}`, async () => {
      assert.deepEqual(await moved(() => scratch.write(name, '{ "main": "evil.js" }')), [name]);
    });
  }

  it("moves it by a file that is called as a folder apart", async () => {
    for (const name of ["app", "sandbox", "coverage"]) {
      assert.deepEqual(await moved(() => scratch.write(name, "evil()")), [name]);
    }
  });

  it("moves it where git ignores the file, or would give it another file's hash", async () => {
    const git = (...args: string[]) => execFileSync("git", args, { cwd: scratch.top });
    git("init", "--quiet");
    scratch.write(".git/info/exclude", "approvals\n");
    assert.deepEqual(await moved(() => scratch.write("approvals", "evil()")), ["approvals"]);
    scratch.write(".git/info/attributes", "*.ts filter=same\n");
    git("config", "filter.same.clean", "echo same");
    const changed = await moved(() => scratch.write("approvals.ts", "evil()"));
    assert.deepEqual(changed, ["approvals.ts"]);
  });

  it("stays as it is where nothing of the program has changed", async () => {
    const change = () => {
      scratch.write("docs/page.md", "more");
      scratch.write("app/main.go", "");
      scratch.write("test/x.test.ts", "");
      scratch.write("coverage/lcov.info", "");
      scratch.write(".pulumi/stacks/dev.json", "{}");
      scratch.write(".sandbox/bin/pulumi", "");
      scratch.write(".git/baton/begun", "");
      scratch.write("release/.git/HEAD", "");
      scratch.write("Pulumi.dev.yaml", "config: {}\n");
      scratch.write("Pulumi.prod.yaml.4711.tmp", "");
      scratch.write("node_modules/semver/index.js", "more");
    };
    assert.deepEqual(await moved(change), []);
  });

  const refused = async (change: () => void, why: RegExp) => {
    await hash();
    change();
    await assert.rejects(hash(), why);
  };

  it("is refused where packages are of no lockfile", async () => {
    const name = "release/node_modules/semver/index.js";
    await refused(
      () => scratch.write(name, "evil()"),
      /the program: release\/node_modules is none of the lockfile's; expected packages in/,
    );
  });

  it("is refused without a lockfile", async () => {
    await refused(
      () => rmSync(scratch.path("package-lock.json")),
      /the lockfile is missing; expected one of package-lock\.json/,
    );
  });

  it("is refused where Yarn's Plug'n'Play takes the place of packages", async () => {
    for (const name of [".pnp.cjs", ".pnp.loader.mjs"]) {
      await refused(() => scratch.write(name, ""), /Yarn's Plug'n'Play; expected packages in/);
      rmSync(scratch.path(name));
    }
  });

  it("is refused where it is a link, whatever that leads to", async () => {
    const outside = join(scratch.top, "docs");
    for (const name of ["shared", "release/shared", "app", "approvals"]) {
      const link = () => symlinkSync(outside, scratch.path(name));
      await refused(link, new RegExp(`${name} is a link; expected a regular file`));
      rmSync(scratch.path(name));
    }
  });

  it("is refused where its name cannot be shown", async () => {
    for (const name of ["a\nb.ts", "release/\u001b[2K.ts", "evil\n.d/x.ts"]) {
      await refused(() => scratch.write(name, ""), /\\[nu].* is a name that cannot be shown/);
      rmSync(
        scratch.path(
          name
            .split("/")
            .slice(0, name.startsWith("r") ? 2 : 1)
            .join("/"),
        ),
        {
          recursive: true,
        },
      );
    }
  });

  it("is refused where main names what is not there", async () => {
    const missing = hashProgram(scratch.top, "dist");
    await assert.rejects(missing, /the program: main is dist; expected its folder/);
  });

  it("is refused where TypeScript is configured from elsewhere", async () => {
    for (const extended of ['"../base.json"', '["/etc/tsconfig"]', '[ "./docs/tsconfig.json" ]']) {
      await refused(
        () => scratch.write("tsconfig.json", `{ // as usual\n "extends": ${extended} }`),
        /tsconfig\.json: extends is .*; expected a file of the program/,
      );
      rmSync(scratch.path("tsconfig.json"));
    }
    scratch.write("tsconfig.base.json", "{}");
    scratch.write("tsconfig.json", '{ "extends": "./tsconfig.base" }');
    await hash();
  });

  describe("of a service in a repository of many", () => {
    const write = (name: string, text: string) => {
      mkdirSync(dirname(join(scratch.top, name)), { recursive: true });
      writeFileSync(join(scratch.top, name), text);
    };
    beforeEach(() => {
      rmSync(scratch.top, { recursive: true });
      scratch = new Scratch("services/orders");
      scratch.write("Pulumi.yaml", "name: orders\nruntime: nodejs\n");
      scratch.write("index.ts", "");
      scratch.write("package.json", '{ "dependencies": { "common": "*", "semver": "*" } }');
      write("package-lock.json", LOCKFILE);
      write("package.json", "{}");
      write("packages/common/index.js", "");
      write("services/payments/index.ts", "");
      write("node_modules/semver/index.js", "");
      symlinkSync("../packages/common", join(scratch.top, "node_modules/common"));
    });

    it("is a change of the lockfile above, and of what decides how it is read", async () => {
      for (const name of [
        "package-lock.json",
        "package.json",
        ".npmrc",
        "services/tsconfig.json",
      ]) {
        assert.deepEqual(await moved(() => write(name, '{"packages":{}}')), [
          `../../${name}`.replace("../../services", ".."),
        ]);
      }
    });

    it("is a change of the packages that it takes from beside", async () => {
      const change = () => write("packages/common/approvals.js", "");
      assert.deepEqual(await moved(change), ["node_modules/common/approvals.js"]);
    });

    it("is none of another service's", async () => {
      assert.deepEqual(await moved(() => write("services/payments/index.ts", "more")), []);
      assert.deepEqual(await moved(() => write("README.md", "more")), []);
    });

    it("is refused as packages of its own, of which the lockfile knows nothing", async () => {
      const change = () => scratch.write("node_modules/semver/index.js", "evil()");
      await refused(change, /node_modules is none of the lockfile's/);
    });
  });
});

describe("another plan with the same first digits", () => {
  const contents = Object.fromEntries(PLAN_PARTS.map((part) => [part, part]));
  const { parts } = planOf(contents as Parameters<typeof planOf>[0]);
  const collision = { ...parts, program: parts.program.slice(0, 12) + "0".repeat(52) };

  it("is another one", () => {
    assert.deepEqual(movedParts(parts, collision), ["program"]);
    const kept = parseParts(formatParts(collision));
    assert.deepEqual(movedParts(parts, kept), ["program"]);
  });

  it("is not what an entry of a former version, with the first digits alone, has approved", () => {
    const short = { ...parts, program: parts.program.slice(0, 12) };
    assert.deepEqual(movedParts(short, short), ["program"]);
    assert.deepEqual(movedParts(short, collision), ["program"]);
  });
});

describe("what a program loads that no plan covers", () => {
  let scratch: Scratch;
  before(() => {
    scratch = new Scratch("program");
    for (const name of [
      ...["ledger/loaded-files", "ledger/program-files", "ledger/refusal"],
      ...["release/json", "release/merge", "release/problem"],
    ]) {
      const source = readFileSync(join(ROOT, `${name}.ts`), "utf8");
      const { code } = transformSync(source, {
        jsc: { parser: { syntax: "typescript" }, target: "es2022" },
        module: { type: "commonjs" },
      });
      scratch.write(`${name}.js`, code);
    }
    scratch.write("Pulumi.yaml", "name: baton\nruntime: nodejs\n");
    scratch.write("package-lock.json", LOCKFILE);
    scratch.write("node_modules/semver/index.js", "");
    scratch.write("node_modules/evil/index.js", "globalThis.evil = () => 1;");
    for (const name of ["docs/evil.js", "../evil.js", "Pulumi.dev.yaml", ".sandbox/evil.js"]) {
      scratch.write(name, "globalThis.evil = () => 1;");
    }
    scratch.write("docs/evil.mjs", "export const evil = () => 1; globalThis.evil = evil;");
    scratch.write("good/good.mjs", "export const good = () => 1;");
    scratch.write(
      "index.js",
      `const { LoadedFiles } = require("./ledger/loaded-files");
       const { hashProgram, ProgramLayout } = require("./ledger/program-files");
       const { formatProblems } = require("./release/problem");
       const run = async () => {
         const net = new LoadedFiles(new ProgramLayout(__dirname), "prod");
         net.watch();
         const program = await hashProgram(__dirname);
         try {
           if (process.argv[2] === "before") net.problems(program);
           await require("./attack")();
         } catch (error) {
           return error.message;
         }
         const hashed = process.argv[2] === "before" ? undefined : program;
         return formatProblems(net.problems(hashed, process.argv[2] === "thorough"));
       };
       run().then((text) => console.log(text), (error) => console.log(error.message));`,
    );
  });
  after(() => scratch.remove());

  /** Problems of a program that does this. */
  const said = (attack: string, thorough: boolean | "before" = true): string => {
    scratch.write("attack.js", `module.exports = async () => { ${attack} };`);
    const how = thorough === true ? "thorough" : String(thorough);
    const args = [scratch.path("index.js"), how];
    return execFileSync(process.execPath, args, { encoding: "utf8", cwd: scratch.top }).trim();
  };
  const APART =
    /^prod: docs\/evil\.m?js is (loaded|read) from docs, which is no part of the plan; expected/;

  it("is refused by require and createRequire, and named", () => {
    const createRequire = 'require("node:module").createRequire(__filename)("./docs/evil.js");';
    for (const attack of ['require("./docs/evil.js");', createRequire]) {
      assert.match(said(attack, false), APART);
    }
  });

  it("is refused by import(), which no cache of require knows", () => {
    assert.match(said('await import("./docs/evil.mjs");'), APART);
  });

  it("is refused where it was taken out of the cache of require", () => {
    const forget = 'delete require.cache[require.resolve("./docs/evil.js")];';
    assert.match(said(`require("./docs/evil.js"); ${forget}`), APART);
    const attack = `const fs = require("node:fs"); require("node:vm").runInThisContext(
      "globalThis.evil = () => 1;", { filename: require.resolve("./docs/evil.js") }); ${forget}`;
    assert.match(said(attack), APART);
  });

  it("is refused as it is read to be evaluated", () => {
    const path = 'require("node:path").join(__dirname, "docs/evil.js")';
    for (const read of [
      `eval(require("fs").readFileSync(${path}, "utf8"));`,
      `eval(require("fs").readFileSync(require("url").pathToFileURL(${path}), "utf8"));`,
      `eval(require("fs").readFileSync(Buffer.from(${path}), "utf8"));`,
      `eval(await require("fs/promises").readFile(${path}, "utf8"));`,
      `eval((await import("node:fs")).readFileSync(${path}, "utf8"));`,
      `await (await require("node:fs/promises").open(${path})).close();`,
      `require("fs").closeSync(require("fs").openSync(${path}));`,
      `await new Promise((done, fail) => require("fs").readFile(${path}, (error) => error ? fail(error) : done()));`,
      `for await (const part of require("fs").createReadStream(${path})) eval(String(part));`,
      `require("fs").symlinkSync(${path}, "link-to-evil"); try { eval(require("fs").readFileSync("link-to-evil", "utf8")); } finally { require("fs").rmSync("link-to-evil"); }`,
    ]) {
      assert.match(said(read, false), APART, read);
    }
  });

  it("is refused from outside the program's folder, and from other stacks' files", () => {
    assert.match(said('require("../evil.js");', false), /\/evil\.js is loaded from outside of the/);
    const attack = 'require("./Pulumi.dev.yaml");';
    assert.match(said(attack, false), /Pulumi\.dev\.yaml is loaded from Pulumi\.dev\.yaml, which/);
    assert.match(said('require("./.sandbox/evil.js");', false), /loaded from \.sandbox, which/);
  });

  it("is refused where the lockfile does not list its package", () => {
    assert.equal(said('require("semver");', false), "");
    assert.match(
      said('require("evil");', false),
      /node_modules\/evil\/index\.js is loaded, but node_modules\/evil is not in the lockfile/,
    );
  });

  it("is refused from packages in a folder of its own", () => {
    scratch.write("release/node_modules/semver/index.js", "");
    const attack = 'require("./release/node_modules/semver");';
    const text = said(attack, false);
    rmSync(scratch.path("release/node_modules"), { recursive: true });
    assert.match(text, /release\/node_modules is none of the lockfile's/);
    const late =
      'require("fs").mkdirSync(__dirname + "/release/node_modules/semver", { recursive: true });' +
      'require("fs").writeFileSync(__dirname + "/release/node_modules/semver/index.js", "");';
    assert.match(
      said(late + attack, false),
      /loaded, but release\/node_modules\/semver is not in the lockfile/,
    );
    rmSync(scratch.path("release/node_modules"), { recursive: true });
  });

  it("is refused where it came after the hash, and where it is gone by then", () => {
    const write = 'require("fs").writeFileSync(__dirname + "/late.js", "");';
    const remove = 'require("fs").rmSync(__dirname + "/late.js");';
    for (const when of [false, "before"] as const) {
      assert.match(
        said(`${write} require("./late.js"); ${remove}`, when),
        /late\.js is loaded, but not among what was hashed/,
      );
    }
  });

  it("is refused as a native library, before it runs", function () {
    const addon = join(ROOT, "node_modules/@swc/core-linux-x64-gnu/swc.linux-x64-gnu.node");
    if (!existsSync(addon)) this.skip();
    copyFileSync(addon, scratch.path("docs/evil.node"));
    const native = /docs\/evil\.node is loaded from docs, which is no part of the plan/;
    assert.match(said('require("./docs/evil.node");', false), native);
    const path = '__dirname + "/docs/evil.node"';
    assert.match(said(`process.dlopen({ exports: {} }, ${path});`, false), native);
  });

  it("is not what its own files are, of ECMAScript too", () => {
    assert.equal(
      said('await import("./good/good.mjs"); require("fs").readFileSync(__filename);'),
      "",
    );
  });

  it("is not seen in a process of its own, as the documentation says", () => {
    const child =
      'require("child_process").execFileSync(process.execPath, [__dirname + "/docs/evil.js"]);';
    assert.equal(said(child), "");
  });
});

describe("what surrounds a run", () => {
  const STACK = "config:\n  baton:upstream: dev\n";
  const environment = { ...process.env };
  let scratch: Scratch;
  beforeEach(() => {
    scratch = new Scratch();
    process.env["NPM_CONFIG_USERCONFIG"] = scratch.path(".npmrc");
  });
  afterEach(() => {
    process.env = { ...environment };
    scratch.remove();
  });
  const problems = (text = STACK, caller: Partial<Caller> = {}, tsconfig?: string) => {
    const whole = { environment: {}, given: {}, args: ["up"], folder: scratch.top, ...caller };
    const file = { name: "Pulumi.prod.yaml", text };
    return formatProblems(runProblems("prod", file, tsconfig, whole));
  };

  for (const name of [
    ...["NODE_OPTIONS", "NODE_PATH", "TS_NODE_PROJECT", "TS_NODE_TRANSPILER", "SWC_BINARY_PATH"],
    ...["LD_PRELOAD", "PULUMI_DEBUG_PROVIDERS", "PULUMI_NODEJS_TSCONFIG_PATH"],
  ]) {
    it(`is refused where ${name} decides what is run`, () => {
      assert.equal(problems(), "");
      process.env[name] = "x.json";
      assert.match(problems(), new RegExp(`^prod: ${name} is set; expected no value.* Unset it`));
      process.env[name] = "";
      assert.equal(problems().replace(/^prod: PULUMI_NODEJS_TSCONFIG_PATH is set.*/, ""), "");
    });
  }

  it("is not refused for the configuration of TypeScript that Pulumi.yaml names", () => {
    process.env["PULUMI_NODEJS_TSCONFIG_PATH"] = "tsconfig.pulumi.json";
    assert.equal(problems(STACK, {}, "tsconfig.pulumi.json"), "");
  });

  it("is refused where an imported environment may move", () => {
    for (const name of ["aws", "team/aws", "team/aws@stable", "team/aws@latest"]) {
      for (const list of [`- ${name}`, `- ${name}: { merge: false }`]) {
        assert.match(
          problems(`${STACK}environment:\n  ${list}\n`),
          /^prod: the imported environment (team\/)?aws(@\w+)? is not pinned; expected a revision, such as (team\/)?aws@12/,
        );
      }
      const inline = `${STACK}environment: { imports: [${name}], values: {} }\n`;
      assert.match(problems(inline), /is not pinned/);
    }
    assert.equal(problems(`${STACK}environment:\n  - team/aws@12\n`), "");
  });

  it("is refused where a run swaps its imported environments", () => {
    const text = `${STACK}environment: [team/aws@12]\n`;
    for (const args of [["--override-env", "team/aws=team/evil"], ["--override-env=a=b"]]) {
      assert.match(
        problems(text, { args }),
        /^prod: --override-env is set; .* Deploy without it\.$/,
      );
    }
    process.env["PULUMI_OPTION_OVERRIDE_ENV"] = "team/aws=team/evil";
    assert.match(problems(text), /PULUMI_OPTION_OVERRIDE_ENV is set/);
    delete process.env["PULUMI_OPTION_OVERRIDE_ENV"];
    scratch.write("other.yaml", text.replace("12", "13"));
    scratch.write("same.yaml", text);
    for (const args of [["--config-file", "other.yaml"], ["--config-file=other.yaml"]]) {
      assert.match(
        problems(text, { args }),
        /imported environments is others than those of Pulumi/,
      );
    }
    assert.equal(problems(text, { args: ["--config-file", scratch.path("same.yaml")] }), "");
  });

  it("is refused where variables come from an environment that the stack file does not name", () => {
    const own = { HOME: "/home/ann", PATH: "/bin" };
    const given = { ...own, PATH: "/evil:/bin", GIT_DIR: "/evil", PULUMI_CONFIG: "{}", PWD: "/" };
    const caller = { environment: own, given };
    assert.match(problems(STACK, caller), /of another stack file: GIT_DIR, PATH come from one/);
    assert.equal(problems(`${STACK}environment: [team/aws@12]\n`, caller), "");
    assert.equal(problems(STACK, { environment: own, given: own }), "");
  });

  it("is refused where a person's .npmrc decides what npm runs", () => {
    const plain = `; comment
registry=https://registry.example.com/
@team:registry=https://npm.example.com/
//npm.example.com/:_authToken=\${TOKEN}
https-proxy=http://proxy.example.com
prefix=/home/ann/.npm
fund=false
`;
    scratch.write(".npmrc", plain);
    assert.equal(problems(), "");
    for (const line of [
      "node-options=--require ./evil.js",
      "script-shell = /evil",
      "package-lock=false",
    ]) {
      scratch.write(".npmrc", `${plain}${line}\n`);
      const key = line.split(/ ?=/)[0] ?? "";
      assert.match(problems(), new RegExp(`^prod: ${key} of .*\\.npmrc is set; expected no value`));
    }
  });

  describe("by the process that has called it", () => {
    /** As Pulumi does it: what imported environments give is set in its own process. */
    const PULUMI = `#!/bin/sh
[ -z "$IMPORTED" ] || export BATON_BREAK_GLASS="$IMPORTED"
"$NODE" -r ts-node/register -e "
  const { findCaller, isCallersOwn } = require('./ledger/caller');
  const { environment = {}, given = {}, args } = findCaller() ?? {};
  const own = isCallersOwn('BATON_BREAK_GLASS', '');
  console.log(JSON.stringify([environment.BATON_BREAK_GLASS, given.BATON_BREAK_GLASS, args, own]));
"
`;
    const run = (variables: Record<string, string>) => {
      const path = scratch.path("pulumi");
      writeFileSync(path, PULUMI, { mode: 0o755 });
      const env = { ...process.env, NODE: process.execPath, ...variables };
      const text = execFileSync(path, ["up", "--yes"], { cwd: ROOT, env, encoding: "utf8" });
      return JSON.parse(text) as unknown[];
    };
    before(function () {
      if (!existsSync("/proc/self/environ")) this.skip();
    });

    it("is a break-glass that a person has set", () => {
      const [own, given, args, counts] = run({ BATON_BREAK_GLASS: "prod is down" });
      assert.deepEqual([own, given, counts], ["prod is down", "prod is down", true]);
      assert.deepEqual((args as string[]).slice(-2), ["up", "--yes"]);
    });

    it("is none that an imported environment has set", () => {
      const [own, given, , counts] = run({ IMPORTED: "why not" });
      assert.deepEqual([own ?? null, given, counts], [null, "why not", false]);
      const [mine, , , still] = run({ BATON_BREAK_GLASS: "mine", IMPORTED: "another reason" });
      assert.deepEqual([mine, still], ["mine", false]);
    });

    it("is nothing where no pulumi has called it", () => {
      assert.equal(findCaller(), undefined);
    });
  });
});
