import { execa } from "execa";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Git } from "./git";

export const SIGNATURE = /^-----BEGIN (SSH|PGP) SIGNATURE-----$/m;

/** A line of allowed signers that names a PGP key, which ssh-keygen would not understand. */
const PGP_SIGNER = /^\s*(\S+)\s+pgp\s+([0-9A-Fa-f]{40})\s*$/;

/**
 * Who has signed a tag, by keys that are valid at a time.
 * @param id the tag object's
 * @param allowedSigners as `allowed_signers` of ssh-keygen, or lines `EMAIL pgp FINGERPRINT`
 * @param at when the keys must be valid: the time at which the word is used
 * @returns the addresses that the allowed signers give the key; empty for a signature that is not
 * good. Undefined for a tag without a signature.
 */
export async function signersOfTag(
  git: Git,
  id: string,
  allowedSigners: string,
  at: Date,
): Promise<readonly string[] | undefined> {
  // The object is read by its id, as a name may mean another object by now.
  const object = (await git.try("cat-file", "tag", id)) ?? "";
  const kind = SIGNATURE.exec(object);
  if (kind === null) return undefined;
  const lines = allowedSigners.split("\n");
  if (kind[1] === "PGP") return pgpSigners(git, id, lines, at);
  const sshLines = lines.filter((line) => !PGP_SIGNER.test(line)).join("\n");
  return sshSigners(object.slice(0, kind.index), object.slice(kind.index), sshLines, at);
}

/**
 * Asks ssh-keygen, as git would, but with the time of use in place of the tag's own date: the owner of
 * an expired key may write any date into a tag.
 */
async function sshSigners(
  payload: string,
  signature: string,
  allowedSigners: string,
  at: Date,
): Promise<readonly string[]> {
  const folder = await mkdtemp(join(tmpdir(), "baton-"));
  try {
    const [keys, signed] = [join(folder, "allowed-signers"), join(folder, "signature")];
    await Promise.all([writeFile(keys, allowedSigners), writeFile(signed, signature)]);
    const time = `-Overify-time=${at.toISOString().replace(/[-:T]|\.\d+/g, "")}`;
    const files = ["-f", keys, "-s", signed];
    const options = { reject: false, env: { LC_ALL: "C" } } as const;
    const found = await execa("ssh-keygen", ["-Y", "find-principals", ...files, time], options);
    if (found.failed) return [];
    const principals = found.stdout.split("\n").filter((line) => line !== "");
    const verified = principals.map(async (principal) => {
      const args = ["-Y", "verify", "-n", "git", "-I", principal, ...files, time];
      const run = await execa("ssh-keygen", args, { ...options, input: payload });
      return run.failed ? [] : [principal];
    });
    return (await Promise.all(verified)).flat();
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Asks gpg by way of git, whose words name the key. */
async function pgpSigners(
  git: Git,
  id: string,
  lines: readonly string[],
  at: Date,
): Promise<readonly string[]> {
  const said = await git.told(["verify-tag", "--raw", id]);
  const status = (name: string) => new RegExp(`^\\[GNUPG:\\] ${name} (.+)$`, "m").exec(said)?.[1];
  const expired = Number(status("KEYEXPIRED")?.split(" ")[0]) * 1000;
  const isGood = status("GOODSIG") !== undefined;
  const wasGood = status("EXPKEYSIG") !== undefined && expired > at.getTime();
  const fields = status("VALIDSIG")?.split(" ") ?? [];
  if (!(isGood || wasGood) || fields.length === 0) return [];
  // The key that has signed, and the primary key that it belongs to.
  const keys = [fields[0], fields.at(-1)];
  return lines.flatMap((line) => {
    const [, who = "", key = ""] = PGP_SIGNER.exec(line) ?? [];
    return keys.includes(key.toUpperCase()) ? [who] : [];
  });
}
