import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { parse, YAMLParseError } from "yaml";
import { MOVING_KEYS } from "../config-schema";
import { FLOW_FILE, PROTECTED_BRANCH, ProtectedBranches } from "../release/flow";
import { orderPath } from "../release/path";
import { isTree, type Tree } from "../release/merge";
import { planOf, type Plan } from "../release/plan";
import { hotfixFromOf } from "../release/eligibility";
import type { Target } from "../release/way-back";
import { Git } from "./git";
import {
  blobId,
  hashProgram,
  isInside,
  ProgramLayout,
  sha256,
  UncoveredProgram,
  type Program,
} from "./program-files";
import { Refusal } from "./refusal";
import {
  parseGivenConfig,
  parseProjectFile,
  parseStackConfig,
  projectValues,
  type MovingKey,
  POLICY_KEYS,
  splitSecrets,
  type ProjectFile,
  type StackConfig,
} from "./stack-config";
import { editStackFile, readStackFile, restoreStackFile } from "./stack-file";

/** The Pulumi project in a folder: its stack files, and the program they configure. */
export class Project {
  private constructor(
    readonly folder: string,
    private readonly file: ProjectFile,
  ) {}

  static async open(folder: string): Promise<Project> {
    const path = join(folder, "Pulumi.yaml");
    const text = await readStackFile(path);
    if (text === "") {
      throw new Refusal({
        where: folder,
        property: "Pulumi.yaml",
        value: "missing",
        expected: "the folder of a Pulumi project",
        fix: "Change to it, or name it with --cwd",
      });
    }
    const file = parseProjectFile(text);
    if (!/^[A-Za-z0-9][\w-]*(\.[\w-]+)*$/.test(file.name) || file.name.endsWith(".lock")) {
      throw new Refusal({
        where: "Pulumi.yaml",
        property: "name",
        value: file.name,
        expected: "letters, digits, _, - and single full stops, as the name is part of git tags",
        fix: "Give the project another name",
      });
    }
    return new Project(folder, file);
  }

  get name(): string {
    return this.file.name;
  }

  /** The program's folder, relative to the project's. */
  get main(): string {
    return this.file.main;
  }

  get programFolder(): string {
    return resolve(this.folder, this.file.main);
  }

  /** Where Pulumi.yaml says that the state is; nothing where it does not. */
  get backend(): string | undefined {
    const { backend } = this.file.others;
    const url = isTree(backend) ? backend["url"] : undefined;
    return typeof url === "string" ? url : undefined;
  }

  /** Every environment that has a stack file, in the order an image passes them. */
  async path(): Promise<string[]> {
    const names = (await readdir(this.folder))
      .flatMap((file) => /^Pulumi\.([^.]+)\.yaml$/.exec(file)?.[1] ?? [])
      .sort();
    const upstreams = await Promise.all(
      names.map(async (name) => [name, (await this.config(name)).upstream] as const),
    );
    return orderPath(Object.fromEntries(upstreams));
  }

  /**
   * The branches whose history is reviewed, by name or pattern: the one that `pipelines/flow.yaml`
   * names for an environment, and the default, which the others are merged into.
   * @param environment all environments unless given
   */
  async protectedBranches(environment?: string): Promise<string[]> {
    const table = await this.protectedByEnvironment();
    const own =
      environment === undefined ? Object.values(table) : [table[environment] ?? []].flat();
    return [...new Set([...own, PROTECTED_BRANCH])];
  }

  /** `protected` of the flow; empty where there is no flow, or none that can be read. */
  private async protectedByEnvironment(): Promise<Readonly<Record<string, string>>> {
    try {
      const flow: unknown = parse(await this.text(FLOW_FILE));
      const found = ProtectedBranches.safeParse(isTree(flow) ? flow["protected"] : undefined);
      return found.success ? found.data : {};
    } catch (error) {
      if (error instanceof YAMLParseError) return {};
      throw error;
    }
  }

  /** The environments that are asked for, approved and deployed together with another. */
  async followersOf(environment: string): Promise<string[]> {
    const path = await this.path();
    const configs = await Promise.all(
      path.map(async (name) => [name, await this.config(name)] as const),
    );
    return configs.flatMap(([name, { follows, upstream }]) =>
      follows && upstream === environment ? [name] : [],
    );
  }

  /** A file of the project; empty where there is none. */
  async text(file: string): Promise<string> {
    return readStackFile(join(this.folder, file));
  }

  stackFile(environment: string): string {
    return `Pulumi.${environment}.yaml`;
  }

  /** @throws Refusal when there is no such environment. */
  async read(environment: string): Promise<string> {
    const text = await readStackFile(join(this.folder, this.stackFile(environment)));
    if (text !== "") return text;
    const path = await this.path();
    throw new Refusal({
      where: environment,
      property: this.stackFile(environment),
      value: "missing or empty",
      expected: `one of the environments ${path.join(", ")}`,
      fix: "Name one of them, or add its stack file",
    });
  }

  async config(environment: string): Promise<StackConfig> {
    return this.parse(environment, await this.read(environment));
  }

  /** What a text of the stack file means, beside the Pulumi.yaml of now or of then. */
  parse(environment: string, stackFile: string, projectFile?: string): StackConfig {
    const file = projectFile === undefined ? this.file : parseProjectFile(projectFile);
    return parseStackConfig(file, stackFile, environment);
  }

  /** The stack file's text with other values for what moves; `undefined` removes a key. */
  edit(
    environment: string,
    stackFile: string,
    moving: Readonly<Partial<Record<MovingKey, string | undefined>>>,
  ): string {
    const changes = MOVING_KEYS.map((key) => [`${this.file.name}:${key}`, moving[key]] as const);
    return editStackFile(stackFile, Object.fromEntries(changes), environment);
  }

  /**
   * A stack file's text with what a former Pulumi.yaml gave each stack, in place of what the present
   * one gives.
   */
  withDefaults(environment: string, stackFile: string, projectFile: string): string {
    const now = projectValues(this.file);
    const then = Object.entries(projectValues(parseProjectFile(projectFile)));
    const config: unknown = (parse(stackFile) as Tree | null)?.["config"];
    const own = isTree(config) ? config : {};
    const differing = then.filter(
      ([key, value]) => !(key in own) && !isDeepStrictEqual(value, now[key]),
    );
    if (differing.length === 0) return stackFile;
    return editStackFile(stackFile, Object.fromEntries(differing), environment);
  }

  /**
   * The stack file's text for a way back: as it was when the release was deployed, where that is
   * known, with the present secrets and the present approval policy, unless the one of then is asked
   * for.
   */
  editBack(
    environment: string,
    stackFile: string,
    back: {
      readonly target: Target;
      readonly leaving: string;
      readonly former?: string | undefined;
      readonly policy?: "then";
    },
  ): string {
    const { target, leaving, former, policy } = back;
    const keys = policy === "then" ? [] : POLICY_KEYS;
    const present = keys.map((key) => `${this.file.name}:${key}`);
    const text =
      former === undefined ? stackFile : restoreStackFile(former, stackFile, present, environment);
    return this.edit(environment, text, {
      imageTag: target.tag,
      imageDigest: target.digest,
      version: this.parse(environment, text).versioned ? target.version : undefined,
      rollbackOf: leaving,
      hotfixFrom: hotfixFromOf(target.tag, this.parse(environment, text).upstream),
    });
  }

  /** What Pulumi gives the program of a stack, as `parse` has it. */
  parseGiven(
    environment: string,
    given: Readonly<Record<string, string | undefined>>,
  ): StackConfig {
    return parseGivenConfig(this.file, given, environment);
  }

  /** What would be deployed with this text as the stack file. */
  async plan(environment: string, stackFile: string): Promise<Plan> {
    return this.planOf(this.parse(environment, stackFile));
  }

  /** The program as its files are now. */
  async program(): Promise<Program> {
    return hashProgram(this.folder, this.file.main);
  }

  /** TypeScript's configuration where Pulumi.yaml names another than tsconfig.json. */
  get tsconfig(): unknown {
    const runtime = this.file.others["runtime"];
    const options = isTree(runtime) ? runtime["options"] : undefined;
    return isTree(options) ? options["tsconfig"] : undefined;
  }

  /** The folders in which the program and its packages are. */
  get layout(): ProgramLayout {
    return new ProgramLayout(this.folder, this.file.main);
  }

  /**
   * Describes the program's files that differ from a commit's; undefined where that commit is of
   * another repository. Git tells the commit's ids only: files here are hashed as they are.
   */
  async differencesFrom(commit: string): Promise<string[] | undefined> {
    const { layout } = this;
    const list = await new Git(layout.base).try("ls-tree", "-r", "-z", commit);
    if (list === undefined) return undefined;
    const entries = [...list.matchAll(/\d+ blob (\w+)\t([^\0]+)\0/g)];
    const committed = new Map(entries.map(([, id = "", path = ""]) => [path, id]));
    const { files, lockfile } = await this.program();
    const here = Object.keys({ ...files, ...lockfile }).filter((name) => !OUTSIDE.test(name));
    const others = here.map(async (name) => {
      const id = committed.get(name);
      // To install a package of the repository may write files into its folder.
      const isInstalled = [...layout.local].some((folder) =>
        isInside(folder, join(layout.base, name)),
      );
      if (id === undefined) return isInstalled ? [] : `${name} is not in it`;
      const bytes = await readFile(join(layout.base, name));
      if (blobId(bytes, id) === id) return [];
      const plain = Buffer.from(bytes.toString("latin1").replaceAll("\r\n", "\n"), "latin1");
      if (blobId(plain, id) !== id) return `${name} is another one`;
      return `${name} has other line endings, which \`* text=auto eol=lf\` in .gitattributes settles`;
    });
    const gone = [...committed.keys()].filter(
      (name) => !here.includes(name) && layout.apartOf(join(layout.base, name)) === undefined,
    );
    return [
      ...(await Promise.all(others)).flat(),
      ...gone.map((name) => `${name} is missing here`),
    ];
  }

  /**
   * The program as a commit holds it, with what installing its packages has written here; nothing where
   * that commit is of another repository.
   */
  async programAt(commit: string): Promise<Program | undefined> {
    const { layout } = this;
    const git = new Git(layout.base);
    const [top, list] = await Promise.all([
      git.try("rev-parse", "--show-toplevel"),
      git.try("ls-tree", "-r", "-z", "--full-tree", commit),
    ]);
    if (top === undefined || list === undefined) return undefined;
    const entries = [...list.matchAll(/100\d+ blob (\w+)\t([^\0]+)\0/g)].flatMap(
      ([, id = "", path = ""]) => {
        const file = join(top.trim(), path);
        const kind = layout.kindOf(file);
        return kind === undefined ? [] : [{ id, kind, name: layout.nameOf(file) }];
      },
    );
    const contents = await git.bytes(entries.map(({ id }) => id));
    const hashes = (wanted: "program" | "lockfile") =>
      entries.flatMap(({ kind, name }, index) => {
        const bytes = contents[index];
        return kind === wanted && bytes !== undefined ? [[name, sha256(bytes)] as const] : [];
      });
    const committed = new Map(hashes("program"));
    const here = Object.entries((await this.program().catch(noneOfUncovered)).files);
    const installed = here.filter(
      ([name]) => !committed.has(name) && layout.isInstalled(layout.pathOf(name)),
    );
    return {
      files: Object.fromEntries([...committed, ...installed]),
      lockfile: Object.fromEntries(hashes("lockfile")),
    };
  }

  /** A file by the name that plans have for it, as it is now or in a commit; empty where it is not. */
  async programText(name: string, commit?: string): Promise<string> {
    const path = this.layout.pathOf(name);
    if (commit === undefined) return readStackFile(path);
    const folder = dirname(path);
    const git = new Git(existsSync(folder) ? folder : this.folder);
    return (await git.try("show", `${commit}:./${basename(path)}`)) ?? "";
  }

  /** `Pulumi.yaml` without its configuration, as it is now or in a text of it. */
  otherThanConfig(projectFile?: string): Tree {
    return (projectFile === undefined ? this.file : parseProjectFile(projectFile)).others;
  }

  /**
   * The same for a configuration, however it was read.
   * @param known the program, whose signatures count, and the text of Pulumi.yaml; as the files are now
   *   unless given
   */
  async planOf(
    config: StackConfig,
    known: {
      readonly program?: Program;
      readonly allowedSigners?: string;
      readonly projectFile?: string;
    } = {},
  ): Promise<Plan> {
    const [{ files, lockfile }, signers] = await Promise.all([
      known.program ?? this.program(),
      known.allowedSigners ?? this.text(config.approval.allowedSigners),
    ]);
    const { settings, secrets } = splitSecrets(config.settings);
    return planOf({
      // Going back runs fewer suites: it is part of what is approved.
      tag: [config.imageTag, config.rollbackOf, config.hotfixFrom],
      digest: config.imageDigest,
      version: config.version,
      settings,
      secrets: [secrets, config.beside],
      policy: [...POLICY_KEYS.map((key) => config[key]), config.approval.signed ? signers : ""],
      lockfile,
      program: { files, project: this.otherThanConfig(known.projectFile) },
    });
  }
}

function noneOfUncovered(error: unknown): Program {
  if (error instanceof UncoveredProgram) return { files: {}, lockfile: {} };
  throw error;
}

/** Paths of a plan that lead out of the program's folder. */
const OUTSIDE = /^(\.\.|node_modules)\//;
