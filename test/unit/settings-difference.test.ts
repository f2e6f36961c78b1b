import * as assert from "node:assert/strict";
import * as fc from "fast-check";
import { settingsDifference } from "../../release/settings-difference";

const own = (settings: object) => ({ own: settings, others: {} });
const secure = (text: string) => ({ secure: text });

describe("what differs between two configurations", () => {
  it("is said value by value", () => {
    const former = {
      settings: { config: { LOG_LEVEL: "info", OLD: "1", "a.b": "x" } },
      workloads: { web: { replicas: 2, args: ["--fast", "--quiet"] } },
      entrances: {},
    };
    const next = {
      settings: { config: { LOG_LEVEL: "debug", NEW: true, "a.b": "y" } },
      workloads: { web: { replicas: 3, args: ["--fast"] } },
    };
    assert.deepEqual(
      settingsDifference(
        { own: former, others: { "aws:region": "eu-west-1" } },
        { own: next, others: { "aws:region": "eu-west-2" } },
      ),
      [
        { path: "aws:region", kind: "changed", from: "eu-west-1", to: "eu-west-2" },
        { path: "entrances", kind: "removed", from: "{}" },
        { path: "settings.config.LOG_LEVEL", kind: "changed", from: "info", to: "debug" },
        { path: "settings.config.NEW", kind: "added", to: true },
        { path: "settings.config.OLD", kind: "removed", from: "1" },
        { path: 'settings.config["a.b"]', kind: "changed", from: "x", to: "y" },
        { path: "workloads.web.args[1]", kind: "removed", from: "--quiet" },
        { path: "workloads.web.replicas", kind: "changed", from: 2, to: 3 },
      ],
    );
  });

  it("is nothing where only the order of keys differs", () => {
    assert.deepEqual(settingsDifference(own({ a: 1, b: [2] }), own({ b: [2], a: 1 })), []);
    assert.deepEqual(settingsDifference({}, { own: {}, others: {} }), []);
  });

  const hidden: [string, object, object, string, string][] = [
    ["a ciphertext", { KEY: secure("v1:a") }, { KEY: secure("v1:b") }, "KEY", "changed"],
    ["a new ciphertext", {}, { KEY: secure("v1:b") }, "KEY", "added"],
    ["what becomes a secret", { KEY: "plain" }, { KEY: secure("v1:b") }, "KEY", "changed"],
    ["what is none any more", { KEY: secure("v1:b") }, { KEY: "plain" }, "KEY", "changed"],
    ["a credential by its name", { DB_PASSWORD: "a" }, {}, "DB_PASSWORD", "removed"],
    ["what is below one", { apiToken: { a: "b" } }, {}, "apiToken.a", "removed"],
    ["a URL with a password", {}, { DB: "postgres://me:word@host/db?ssl=1" }, "DB", "added"],
    ["a word of a command line", {}, { args: ["--token=abc"] }, "args[0]", "added"],
    ["a URL in one", {}, { args: ["--db=postgres://me:word@host"] }, "args[0]", "added"],
    ["where a secret belongs", {}, { secrets: { KEY: "word" } }, "secrets.KEY", "added"],
    ["a certificate's key", {}, { tls: { key: "word" } }, "tls.key", "added"],
  ];
  for (const [title, from, to, path, kind] of hidden) {
    it(`is not shown of ${title}`, () => {
      assert.deepEqual(settingsDifference(own(from), own(to)), [{ path, kind }]);
    });
  }

  it("never holds a ciphertext", () => {
    const ciphertext = fc.constantFrom("CIPHER:1", "CIPHER:2").map(secure);
    const key = fc.constantFrom("config", "secrets", "a", "b", "a.b", "own", "__proto__x");
    const { tree } = fc.letrec<{ node: unknown; tree: Record<string, unknown> }>((tie) => ({
      node: fc.oneof(
        { maxDepth: 4 },
        fc.constantFrom("text", 1, true, null),
        ciphertext,
        tie("tree"),
        fc.array(tie("node"), { maxLength: 3 }),
      ),
      tree: fc.dictionary(key, tie("node"), { maxKeys: 4 }),
    }));
    const settings = fc.record({ own: tree, others: tree });
    fc.assert(
      fc.property(settings, settings, (from, to) => {
        const changes = settingsDifference(from, to);
        assert.doesNotMatch(JSON.stringify(changes), /CIPHER/);
        assert.deepEqual(settingsDifference(from, from), []);
        const back = settingsDifference(to, from).map(({ path }) => path);
        assert.deepEqual(
          changes.map(({ path }) => path),
          back,
        );
      }),
    );
  });
});
