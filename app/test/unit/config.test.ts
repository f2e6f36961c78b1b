import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { readConfig, readDatabaseUrl } from "../../src/config.js";

const GIVEN = {
  DATABASE_URL: "postgres://app:hunter2@db.example.com/orders",
  PAYMENTS_URL: "https://payments.example.com",
};

describe("the settings", () => {
  it("need only what cannot be guessed", () => {
    assert.deepEqual(readConfig({ ...GIVEN, HOME: "/" }), {
      ...GIVEN,
      PORT: 8080,
      LOG_LEVEL: "info",
      DRAIN_SECONDS: 2,
      APP_VERSION: "0.0.0",
      APP_REVISION: "unknown",
      FAULT: "",
    });
  });

  it("are refused with every problem at once", () => {
    assert.throws(
      () => readConfig({ PORT: "x", LOG_LEVEL: "loud" }),
      (error: Error) => {
        for (const name of ["DATABASE_URL", "PAYMENTS_URL", "PORT", "LOG_LEVEL"]) {
          assert.match(error.message, new RegExp(name));
        }
        return true;
      },
    );
  });

  it("are refused without a word of the password", () => {
    assert.throws(
      () => readDatabaseUrl({ DATABASE_URL: "mysql://app:hunter2@db.example.com" }),
      (error: Error) => /DATABASE_URL/.test(error.message) && !/hunter2/.test(error.message),
    );
  });
});
