import * as assert from "node:assert/strict";
import { ProgramHarness } from "../support/program";

describe("SlackChannels", () => {
  let harness: ProgramHarness;
  beforeEach(async () => (harness = await ProgramHarness.start()));
  afterEach(async () => {
    await harness.stop();
    delete process.env["SLACK_TOKEN"];
  });

  const channels = async (stack: string, secrets: Record<string, string> = {}) => {
    const { resources } = await harness.run({ stack, secrets });
    return resources.filter(({ type }) => type === "slack:index/conversation:Conversation");
  };

  it("are made in the stack that owns them, where a token is configured", async () => {
    const made = await channels("dev", { "slack:token": "xoxb-hunter2" });
    assert.deepEqual(
      made.map(({ inputs }) => inputs["name"]),
      ["podinfo-dev", "podinfo-qa", "podinfo-release", "podinfo-oncall"],
    );
    for (const { inputs, options } of made) {
      assert.equal(inputs["adoptExistingChannel"], true);
      assert.equal(inputs["actionOnDestroy"], "none");
      assert.equal(options.retainOnDelete, true);
      assert.ok(!JSON.stringify(inputs).includes("hunter2"));
    }
  });

  it("are left alone by a token in the environment, which the next run may lack", async () => {
    process.env["SLACK_TOKEN"] = "xoxb-hunter2";
    assert.deepEqual(await channels("dev"), []);
  });

  it("refuse a token in plain text", async () => {
    const otherConfig = { "slack:token": "xoxb-hunter2" };
    const text = await harness.refusal({ stack: "dev", otherConfig });
    assert.match(text, /^dev: slack:token is in plain text; expected a secret/);
    assert.ok(!text.includes("hunter2"));
  });

  it("are not made without a token, nor in another stack", async () => {
    assert.deepEqual(await channels("dev"), []);
    assert.deepEqual(await channels("qa", { "slack:token": "xoxb-hunter2" }), []);
  });
});
