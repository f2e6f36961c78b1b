import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { parse } from "yaml";
import { isCiphertext, isTree, type Tree } from "../release/merge";
import type { Problem } from "../release/problem";

/** A stack file's keys that say what its secrets are encrypted with; any of them names the key. */
const KEYS = ["secretsprovider", "encryptedkey", "encryptionsalt"] as const;

/**
 * Refuses that an environment's stack file shares with another's the key of its secrets, or a secret:
 * the role of one could decrypt the other's secrets, once copied into its own file.
 * @param folder of the Pulumi project
 */
export async function sharedKeys(folder: string, environment: string): Promise<Problem[]> {
  const names = (await readdir(folder)).flatMap(
    (file) => /^Pulumi\.([^.]+)\.yaml$/.exec(file)?.[1] ?? [],
  );
  const files = new Map<string, Tree>();
  for (const name of names.sort()) files.set(name, await readTree(folder, name));
  const own = files.get(environment) ?? {};
  files.delete(environment);
  return [...files].flatMap(([other, file]) => shared(environment, own, other, file));
}

function shared(environment: string, own: Tree, other: string, file: Tree): Problem[] {
  const where = environment;
  const key = KEYS.find(
    (name) => keyOf(own, name) !== "" && keyOf(own, name) === keyOf(file, name),
  );
  const change = `pulumi stack change-secrets-provider URL --stack ${environment}`;
  const problems: Problem[] = [];
  if (key !== undefined) {
    problems.push({
      where,
      property: key,
      value: `that of ${other}, too`,
      expected: "a key of its own, as the role of one could decrypt the other's secrets",
      fix: `Make a key, and run \`${change}\``,
    });
  }
  const foreign = new Map(ciphertextsOf(file["config"]));
  for (const [text, property] of ciphertextsOf(own["config"])) {
    const source = foreign.get(text);
    if (source === undefined) continue;
    problems.push({
      where,
      property,
      value: `the ciphertext of ${source} in Pulumi.${other}.yaml`,
      expected: "a secret that was encrypted for this environment",
      fix: `Set it with \`pulumi config set --secret ${property} --stack ${environment}\``,
    });
  }
  return problems;
}

/** The value of a key; empty without one, and for a provider that is not named by a URL. */
function keyOf(file: Tree, name: (typeof KEYS)[number]): string {
  const value = file[name];
  if (typeof value !== "string") return "";
  if (name !== "secretsprovider") return value.trim();
  // Passphrases and Pulumi Cloud have no URL: the salt tells one passphrase's key from another.
  return value.includes("://") ? value.trim() : "";
}

/** Each ciphertext with the path of the key that has it. */
function ciphertextsOf(value: unknown, path = ""): [string, string][] {
  if (isCiphertext(value)) return [[value.secure.trim(), path]];
  if (Array.isArray(value)) {
    return value.flatMap((item, index) => ciphertextsOf(item, `${path}[${index}]`));
  }
  if (!isTree(value)) return [];
  return Object.entries(value).flatMap(([key, child]) =>
    ciphertextsOf(child, path === "" ? key : `${path}.${key}`),
  );
}

/** A stack file's values; none of a file that is no map, which its own environment refuses. */
async function readTree(folder: string, environment: string): Promise<Tree> {
  const text = await readFile(join(folder, `Pulumi.${environment}.yaml`), "utf8");
  try {
    const values: unknown = parse(text, { merge: true });
    return isTree(values) ? values : {};
  } catch {
    return {};
  }
}
