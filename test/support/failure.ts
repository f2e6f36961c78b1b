import * as assert from "node:assert/strict";
import { ResourceFailed } from "../../provider/cluster";

/** What a resource that must fail says why. */
export async function failure(run: Promise<string>): Promise<string> {
  const error = await run.then(
    () => assert.fail("it passed"),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof ResourceFailed, String(error));
  return error.reasons.join("\n");
}
