import * as pulumi from "@pulumi/pulumi";
import { createHash } from "node:crypto";

/** A short name for a value's content, the same for the same content. */
export function contentHash(value: pulumi.Input<unknown>): pulumi.Output<string> {
  return pulumi
    .jsonStringify(value)
    .apply((text) => createHash("sha256").update(text).digest("hex").slice(0, 16));
}
