import { execa } from "execa";
import { COMMON_FOLDER, GitLocks, lockOf } from "./git-locks";

/** Runs git in a folder, in the same way on every machine: see SETTINGS and gitEnvironment. */
export class Git {
  private ownFolder: Promise<string> | undefined;

  constructor(readonly folder: string) {}

  /**
   * The output of git.
   * @throws Error with git's own words.
   */
  async run(
    args: readonly string[],
    input?: string,
    env: Readonly<Record<string, string>> = {},
  ): Promise<string> {
    const run = await this.patiently(() => start(this.folder, args, { input, env }));
    if (!run.failed) return run.stdout;
    throw new Error(
      `git ${args[0] ?? ""}: ${saidBy(run)}. Settle it, and run the same command again.`,
    );
  }

  /** The output of git, byte for byte; nothing where it refuses. */
  async try(...args: string[]): Promise<string | undefined> {
    const run = await start(this.folder, args, { stripFinalNewline: false });
    return run.failed ? undefined : run.stdout;
  }

  /** Why git refuses a command, in its own words; nothing where it does not, or says nothing. */
  async refusal(...args: string[]): Promise<string | undefined> {
    const run = await start(this.folder, args);
    const isSilent = run.stderr.trim() === "" && run.exitCode !== undefined;
    return run.failed && !isSilent ? saidBy(run) : undefined;
  }

  /**
   * Gets refs from a remote; no ref is deleted, and no other one is moved.
   * @returns why git could not, in its own words, or nothing.
   */
  async fetch(
    remote: string,
    refspecs: readonly string[],
    { unshallow = false }: { readonly unshallow?: boolean } = {},
  ): Promise<string | undefined> {
    const depth = unshallow ? ["--unshallow"] : [];
    return this.exchange([
      ...["-c", `remote.${remote}.followRemoteHEAD=never`, "fetch", ...FETCH, ...depth],
      ...[remote, ...refspecs],
    ]);
  }

  /**
   * Gives refs to a remote, and no others.
   * @returns why git could not, in its own words, or nothing.
   */
  async push(remote: string, refspecs: readonly string[]): Promise<string | undefined> {
    const mirror = ["-c", `remote.${remote}.mirror=false`];
    return this.exchange([...mirror, "push", ...PUSH, remote, ...refspecs]);
  }

  private async exchange(args: readonly string[]): Promise<string | undefined> {
    const run = await this.patiently(() => start(this.folder, args, { timeout: PATIENCE }));
    if (!run.failed) return undefined;
    return run.timedOut ? `no answer in ${PATIENCE / 1000} s` : saidBy(run);
  }

  /**
   * Commits files as they are, and nothing else; also when they have not changed. The commit is
   * signed where the user's git signs commits, as a branch may ask for that, and where it can be.
   * @param author as git writes it; the person at work unless given
   */
  async commit(files: readonly string[], message: string, author?: string): Promise<void> {
    await this.run(["add", "--force", "--", ...files]);
    const by = author === undefined ? [] : [`--author=${author}`];
    const said = ["--quiet", "--no-verbose", "--cleanup=whitespace", "-F", "-"];
    const commit = ["commit", "--allow-empty", ...said, ...by];
    const only = ["--only", "--", ...files];
    const signed = this.run([...commit, ...only], message);
    await signed.catch(async () => this.run([...commit, "--no-gpg-sign", ...only], message));
  }

  /**
   * Makes an annotated tag, which is not there yet.
   * @param at the tagger's date; now unless given
   */
  async tag(
    name: string,
    commit: string,
    message: string,
    { signed = false, at }: { readonly signed?: boolean; readonly at?: Date | undefined } = {},
  ): Promise<void> {
    const kind = signed ? "--sign" : "--no-sign";
    const args = ["tag", "--annotate", kind, "--cleanup=whitespace", "-F", "-", name, commit];
    const date = at === undefined ? {} : { GIT_COMMITTER_DATE: at.toISOString() };
    await this.run(args, message, date);
  }

  /**
   * The contents of objects by their names, in that order; undefined for a name without an object.
   * Files are read as UTF-8.
   */
  async contents(names: readonly string[]): Promise<(string | undefined)[]> {
    return (await this.bytes(names)).map((bytes) => bytes?.toString("utf8"));
  }

  /** The bytes of objects by their names, in that order; undefined for a name without an object. */
  async bytes(names: readonly string[]): Promise<(Buffer | undefined)[]> {
    if (names.length === 0) return [];
    const { stdout } = await execa("git", ["cat-file", "--batch"], {
      cwd: this.folder,
      env: gitEnvironment(),
      extendEnv: false,
      encoding: "buffer",
      input: `${names.join("\n")}\n`,
    });
    const bytes = Buffer.from(stdout);
    const found: (Buffer | undefined)[] = [];
    let start = 0;
    while (found.length < names.length) {
      const end = bytes.indexOf("\n", start);
      const header = bytes.toString("utf8", start, end);
      start = end + 1;
      const size = Number(/^[0-9a-f]+ \w+ (\d+)$/.exec(header)?.[1] ?? NaN);
      found.push(Number.isNaN(size) ? undefined : bytes.subarray(start, start + size));
      if (!Number.isNaN(size)) start += size + 1;
    }
    return found;
  }

  /** Standard output and standard error of git, also where it refuses. */
  async told(args: readonly string[]): Promise<string> {
    return (await start(this.folder, args, { all: true })).all ?? "";
  }

  /** A folder for what is this checkout's own business. */
  async privateFolder(): Promise<string> {
    this.ownFolder ??= this.run(["rev-parse", "--path-format=absolute", "--git-path", "baton"]);
    return this.ownFolder;
  }

  /** Runs git anew for as long as another one is in its way. */
  private async patiently<T extends Ended>(run: () => Promise<T>): Promise<T> {
    const locks = new GitLocks(this.folder, commonFolderOf);
    for (;;) {
      const ended = await run();
      if (!ended.failed || !(await locks.havePassed(ended.stderr))) return ended;
    }
  }
}

/** How long a remote may take, in milliseconds. */
const PATIENCE = 30_000;

const FETCH = [
  ...["--no-tags", "--no-prune", "--no-prune-tags", "--no-recurse-submodules"],
  // Without it, `remote.NAME.fetch` says which further refs are moved.
  "--refmap=",
];
const PUSH = ["--quiet", "--no-follow-tags", "--no-signed", "--no-recurse-submodules"];

/**
 * Git's settings as the tool relies on them: each stands above the user's own, which must not change
 * what the tool does or reads. The user's are: identity, signing keys, credentials, proxies, URLs,
 * ssh, the encoding of line ends in the working tree, and what git trusts (`safe.*`, `protocol.*`,
 * `*.fsckObjects`). A setting that an option can override has the option at its command instead.
 * https://git-scm.com/docs/git-config
 */
const SETTINGS: Readonly<Record<string, string>> = {
  // Programs that git would start. Tidying up could also take objects that no ref names yet.
  "core.hooksPath": "/dev/null",
  "core.fsmonitor": "false",
  "gc.auto": "0",
  "maintenance.auto": "false",
  // Files that are committed are committed as they are.
  "core.attributesFile": "/dev/null",
  "core.excludesFile": "/dev/null",
  "core.ignoreStat": "false",
  "core.safecrlf": "false",
  "status.showUntrackedFiles": "normal",
  // Messages are the ledger, to the letter: a line that begins with `Baton-` is no comment.
  "core.commentChar": "#",
  "i18n.commitEncoding": "UTF-8",
  "i18n.logOutputEncoding": "UTF-8",
  "tag.forceSignAnnotated": "false",
  // History is read as it was made, and searched by basic regular expressions.
  "core.useReplaceRefs": "false",
  "grep.extendedRegexp": "false",
  "grep.patternType": "default",
  "log.follow": "false",
  "log.showSignature": "false",
  "mailmap.blob": "",
  "mailmap.file": "",
  // A signature is good or not by the signers that the project allows.
  "gpg.minTrustLevel": "undefined",
  // A list; the empty value ends those before it.
  "push.pushOption": "",
  "fetch.writeCommitGraph": "false",
  // Read whenever two trees are compared, as a commit does.
  "diff.orderFile": "/dev/null",
  // Words of git that are matched or printed.
  "advice.graftFileDeprecated": "false",
  "advice.pushUpdateRejected": "false",
  "color.advice": "never",
  "color.push": "never",
  "color.remote": "never",
  "color.transport": "never",
  "color.ui": "never",
  "core.quotePath": "false",
  "fetch.output": "full",
};

/**
 * Variables of git that are the user's own; each other one, such as the GIT_DIR that a hook has, is
 * kept from git.
 */
const OWN =
  /^GIT_((AUTHOR|COMMITTER|SSH|SSL|PROXY|HTTP|CURL|PROTOCOL|TEST)_.*|SSH|ASKPASS|ALLOW_PROTOCOL|EXEC_PATH|CEILING_DIRECTORIES|DISCOVERY_ACROSS_FILESYSTEM|CONFIG_(GLOBAL|SYSTEM|NOSYSTEM|COUNT|(KEY|VALUE)_\d+|PARAMETERS))$/;

/** Read for each start of git: a test, and a program in one process with the tool, may change it. */
function gitEnvironment(): Record<string, string | undefined> {
  const env: Record<string, string | undefined> = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !name.startsWith("GIT_") || OWN.test(name)),
  );
  const settings = Object.entries(SETTINGS);
  // Settings that the caller has given in the same way come first, and so count less.
  const first = Number.parseInt(env["GIT_CONFIG_COUNT"] ?? "0", 10) || 0;
  settings.forEach(([key, value], index) => {
    env[`GIT_CONFIG_KEY_${first + index}`] = key;
    env[`GIT_CONFIG_VALUE_${first + index}`] = value;
  });
  env["GIT_CONFIG_COUNT"] = String(first + settings.length);
  // Git gives those of `git -c …` to the programs it starts; they would count more.
  const given = env["GIT_CONFIG_PARAMETERS"];
  if (given !== undefined) {
    const own = settings.map(([key, value]) => `'${key}=${value}'`);
    env["GIT_CONFIG_PARAMETERS"] = [given, ...own].join(" ");
  }
  return {
    ...env,
    // No password is asked for in the middle of a command, and git's words are matched.
    GIT_TERMINAL_PROMPT: "0",
    LC_ALL: "C",
    GIT_ATTR_NOSYSTEM: "1",
    GIT_GRAFT_FILE: "/dev/null",
    GIT_NO_REPLACE_OBJECTS: "1",
    // The only way to keep `trace2.*` off standard error: git reads it before all other settings.
    GIT_TRACE2: "0",
    GIT_TRACE2_EVENT: "0",
    GIT_TRACE2_PERF: "0",
  };
}

interface Options {
  readonly input?: string | undefined;
  readonly env?: Readonly<Record<string, string>>;
  readonly timeout?: number;
  readonly stripFinalNewline?: boolean;
  readonly all?: boolean;
}

async function start(folder: string, args: readonly string[], options: Options = {}) {
  const { input, env = {}, ...others } = options;
  return execa("git", args, {
    cwd: folder,
    env: { ...gitEnvironment(), ...env },
    extendEnv: false,
    reject: false,
    ...others,
    ...(input === undefined ? {} : { input }),
  });
}

async function commonFolderOf(folder: string): Promise<string | undefined> {
  const run = await start(folder, COMMON_FOLDER);
  return run.failed ? undefined : run.stdout;
}

interface Ended {
  readonly failed: boolean;
  readonly stderr: string;
  readonly shortMessage?: string | undefined;
}

function saidBy(run: Ended): string {
  const said = run.stderr.trim() || (run.shortMessage ?? "");
  const lock = lockOf(said);
  if (lock !== undefined) {
    return `${lock} is there: another git is at work, or was killed. Wait for it, or delete that file`;
  }
  return said.replace(/\.$/, "");
}
