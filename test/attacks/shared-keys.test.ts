import * as pulumi from "@pulumi/pulumi";
import * as assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sharedKeys } from "../../ledger/stack-keys";
import { formatProblem } from "../../release/problem";
import { ProgramHarness, ROOT, STACKS } from "../support/program";
import { release } from "../support/releases";
import { ToolScene } from "../support/tool";

const KMS = "awskms://alias/baton-prod?region=eu-west-1";
const PROD = `secretsprovider: ${KMS}
encryptedkey: AQICAHprod
config:
  baton:DB_PASSWORD: { secure: "v1:AAAA:prods" }
`;

describe("a stack file that has what is another environment's", () => {
  let folder: string;
  const root = pulumi.runtime.getRootDirectory;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "baton-keys-"));
    Object.assign(pulumi.runtime, { getRootDirectory: () => folder });
    writeFileSync(join(folder, "Pulumi.yaml"), "name: baton\nruntime: nodejs\n");
    write("prod", PROD);
  });
  afterEach(() => {
    Object.assign(pulumi.runtime, { getRootDirectory: root });
    rmSync(folder, { recursive: true });
  });
  const write = (name: string, text: string) =>
    writeFileSync(join(folder, `Pulumi.${name}.yaml`), text);
  const problems = async (name = "dev") =>
    (await sharedKeys(folder, name)).map(formatProblem).join("\n");

  it("is refused for the key of another, by each of its names", async () => {
    const keys: Readonly<Record<string, string>> = {
      secretsprovider: `secretsprovider: "${KMS}" # ours, too`,
      encryptedkey: "secretsprovider: awskms://alias/baton-dev\nencryptedkey: AQICAHprod",
    };
    for (const [property, text] of Object.entries(keys)) {
      write("dev", `${text}\nconfig: {}\n`);
      assert.equal(
        await problems(),
        `dev: ${property} is that of prod, too; expected a key of its own, as the role of one could decrypt the other's secrets. ` +
          "Make a key, and run `pulumi stack change-secrets-provider URL --stack dev`.",
      );
      assert.match(await problems("prod"), new RegExp(`^prod: ${property} is that of dev, too`));
    }
    write("prod", "encryptionsalt: v1:salt=:v1:check\n");
    write("dev", "{ encryptionsalt: 'v1:salt=:v1:check' }\n");
    assert.match(await problems(), /^dev: encryptionsalt is that of prod, too/);
  });

  it("is refused for a secret of another, wherever it stands, and does not repeat it", async () => {
    const copies = [
      "  baton:DB_PASSWORD: { secure: v1:AAAA:prods }",
      "  baton:SESSION_KEY:\n    secure: >-\n      v1:AAAA:prods",
      '  other:list: [{ a: { "sec\\x75re": "v1:AAAA:prods" } }]',
    ];
    for (const copy of copies) {
      write("dev", `encryptionsalt: v1:own\nconfig:\n${copy}\n`);
      const said = await problems();
      assert.match(
        said,
        /^dev: (baton|other):\S+ is the ciphertext of baton:DB_PASSWORD in Pulumi\.prod\.yaml; expected a secret that was encrypted for this environment\. Set it with `pulumi config set --secret/,
      );
      assert.doesNotMatch(said, /AAAA/);
    }
  });

  it("passes with a key and secrets of its own", async () => {
    write("dev", PROD.replaceAll("prod", "dev"));
    write("qa", "encryptionsalt: v1:one\nconfig: { baton:KEY: { secure: v1:one } }\n");
    write("stage", "encryptionsalt: v1:other\nsecretsprovider: passphrase\n");
    write("dr", "secretsprovider: passphrase\nencryptionsalt: v1:third\n");
    write("broken", "config: [");
    for (const name of ["dev", "qa", "stage", "prod", "dr"]) assert.equal(await problems(name), "");
  });

  it("is none of the committed ones", async () => {
    for (const name of STACKS) assert.deepEqual(await sharedKeys(ROOT, name), []);
  });

  it("stops previews and updates before any resource, and no way back", async () => {
    const harness = await ProgramHarness.start();
    try {
      write("qa", PROD);
      const said =
        /^qa: secretsprovider is that of prod, too[^]*\nqa: baton:DB_PASSWORD is the cipher/;
      for (const preview of [true, false]) {
        assert.match(await harness.refusal({ ...release(harness, "qa"), preview }), said);
      }
      harness.registry.push("build 44", "dev-44", "qa-44");
      const config = { imageTag: "dev-44", rollbackOf: "dev-45" };
      await harness.run({ ...release(harness, "qa", { config }) });
    } finally {
      await harness.stop();
    }
  });
});

describe("a role that may read another environment's state, and not decrypt it", () => {
  const DENIED = "error: AccessDeniedException: not authorized to perform: kms:Decrypt";
  let scene: ToolScene;
  before(async () => {
    scene = await ToolScene.open({ dev: "config: {}\n", qa: "config:\n  baton:upstream: dev\n" });
  });
  after(() => scene.remove());
  /** A `pulumi` that cannot decrypt, and exports a state as it is. */
  const exports = (state: string) =>
    writeFileSync(
      join(scene.folder, ".pulumi/bin/pulumi"),
      `#!/bin/sh\ncase "$1 $2" in "stack export") echo '${state}' ;; *) echo "${DENIED}" >&2; exit 255 ;; esac\n`,
    );

  it("knows what the upstream has earned", async () => {
    const release = { imageTag: "build-1", digest: "sha256:1" };
    const outputs = { earnedTag: "dev-1", release, other: { ciphertext: "v1:AAAA" } };
    const resources = [
      { urn: "urn:pulumi:dev::baton::a:b:C::c", type: "a:b:C", outputs: { earnedTag: "dev-9" } },
      {
        urn: "urn:pulumi:dev::baton::pulumi:pulumi:Stack::s",
        type: "pulumi:pulumi:Stack",
        outputs,
      },
    ];
    exports(JSON.stringify({ deployment: { resources } }));
    const { pulumi } = await scene.context();
    assert.deepEqual(await pulumi.outputs("dev"), { earnedTag: "dev-1", release });
  });

  it("is told why where there is no state, either", async () => {
    exports('{ "deployment": {} }');
    const { pulumi } = await scene.context();
    await assert.rejects(
      pulumi.outputs("dev"),
      /^Error: dev: .*not authorized to perform: kms:Decrypt/,
    );
  });
});
