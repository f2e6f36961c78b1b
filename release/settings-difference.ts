import { isCiphertext, isTree, type Tree } from "./merge";

/** One value that differs between two configurations. */
export interface SettingsChange {
  /** Such as `settings.config.LOG_LEVEL`; of another namespace, with that: `aws:region`. */
  readonly path: string;
  readonly kind: "added" | "removed" | "changed";
  /** Former and new value; absent where there is none, and where it is or may be secret. */
  readonly from?: string | number | boolean | null;
  readonly to?: string | number | boolean | null;
}

/** Looks like a credential by its name. */
export const SECRET_NAME =
  /(PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|PRIVATE_?KEY|CREDENTIALS?)$|^(PASSWORD|SECRET)_/i;
/** A URL with a password before its host. */
export const URL_WITH_PASSWORD = /^[a-z][a-z0-9+.-]*:\/\/[^/@\s]*:[^/@\s]+@/i;
/** Keys of this program below which a secret may stand by mistake. */
const SECRET_PLACES = ["secrets", "pullSecret", "tls", "secure"];

/** A value at a path; hidden where it is a ciphertext or may be a credential. */
interface Leaf {
  readonly value: unknown;
  readonly hidden: boolean;
}

/**
 * What differs between two configurations as the tool parses them: `own`, the program's keys, and
 * `others`, those of other namespaces. In the order of paths.
 */
export function settingsDifference(from: Tree, to: Tree): SettingsChange[] {
  const [former, next] = [leavesOf(from), leavesOf(to)];
  const paths = [...new Set([...former.keys(), ...next.keys()])].sort();
  return paths.flatMap((path) => {
    const [one, other] = [former.get(path), next.get(path)];
    if (one !== undefined && other !== undefined && same(one.value, other.value)) return [];
    const kind = one === undefined ? "added" : other === undefined ? "removed" : "changed";
    // What is no secret any more, or was none before, is still the same secret.
    if (one?.hidden === true || other?.hidden === true) return [{ path, kind }];
    return [
      {
        path,
        kind,
        ...(one === undefined ? {} : { from: show(one.value) }),
        ...(other === undefined ? {} : { to: show(other.value) }),
      },
    ];
  });
}

function same(one: unknown, other: unknown): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}

/** Leaves are scalars, but also maps and lists without anything in them. */
function show(value: unknown): string | number | boolean | null {
  const scalar = ["string", "number", "boolean"].includes(typeof value) || value === null;
  return scalar ? (value as string | number | boolean | null) : JSON.stringify(value);
}

function leavesOf(settings: Tree): Map<string, Leaf> {
  const leaves = new Map<string, Leaf>();
  const visit = (value: unknown, path: string, hidden: boolean): void => {
    const list = Array.isArray(value) ? (value as unknown[]) : undefined;
    const ciphertext = isCiphertext(value);
    if (list !== undefined && list.length > 0) {
      for (const [index, item] of list.entries()) visit(item, `${path}[${index}]`, hidden);
    } else if (isTree(value) && !ciphertext && Object.keys(value).length > 0) {
      for (const [key, child] of Object.entries(value)) {
        visit(child, join(path, key), hidden || namesSecret(key));
      }
    } else {
      leaves.set(path, { value, hidden: hidden || ciphertext || holdsSecret(value) });
    }
  };
  // Neither word is part of a path.
  for (const part of ["own", "others"]) {
    const tree = settings[part];
    for (const [key, value] of Object.entries(isTree(tree) ? tree : {})) {
      visit(value, join("", key), namesSecret(key));
    }
  }
  return leaves;
}

function join(path: string, key: string): string {
  if (/[.[\]"]/.test(key)) return `${path}[${JSON.stringify(key)}]`;
  return path === "" ? key : `${path}.${key}`;
}

function namesSecret(key: string): boolean {
  return SECRET_PLACES.includes(key) || SECRET_NAME.test(key);
}

/** Also as a word of a command line: `--token=…`. */
function holdsSecret(value: unknown): boolean {
  if (typeof value !== "string") return false;
  return value.split(/[\s,;"']+/).some((word) => {
    const equals = word.indexOf("=");
    const [name, text] = [word.slice(0, Math.max(0, equals)), word.slice(equals + 1)];
    return [word, text].some((one) => URL_WITH_PASSWORD.test(one)) || SECRET_NAME.test(name);
  });
}
