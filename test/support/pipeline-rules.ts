import type { PolicyDocument, RolesConfig } from "../../components/internal/iam";
import { matches, protectedBranch, type Flow } from "../../release/flow";
import { fill, holds, type Names } from "./runner";
import type { Job, Step, Workflow } from "./workflows";

/*
 * Rules for every file that decides which code gets credentials: code of a protected branch, and no
 * other. Each function returns what breaks a rule in one parsed file, as short sentences.
 */

/** A way in which a workflow starts. */
interface Start {
  readonly by: "tag" | "branch" | "pull request" | "clock" | "hand";
  /** The branch or tag. */
  readonly name: string;
  readonly names: Names;
}

/** Events whose code is known: of all others, such as pull_request_target, the rules know nothing. */
const EVENTS = ["push", "pull_request", "schedule", "workflow_dispatch", "repository_dispatch"];
const SECRET = /\bsecrets\b/;
/** Commands that run what a checkout holds. */
const RUNS_CHECKOUT = /(^|[\s;&|])(npm|npx|node|make|yarn|pulumi|sh|bash|\.{0,2}\/|pipelines\/)/m;

/** A name that a filter lets in. */
const exampleOf = (pattern: string) =>
  pattern
    .replace("**", "prod/0/bob")
    .replace(/(^v|\/)\*$/, "$11.4.0")
    .replace(/\*+/g, "x");

function startsOf({ on }: Workflow): Start[] {
  const events = typeof on === "object" ? on : {};
  const repository = { "github.repository": "team/orders" };
  const start = (by: Start["by"], event: string, ref: string, more: Names = {}): Start => {
    const name = ref.replace(/^refs\/(heads|tags)\//, "");
    const names = { "github.event_name": event, "github.ref": ref, "github.ref_name": name };
    return { by, name, names: { ...repository, ...names, ...more } };
  };
  const push = events["push"];
  // Without filters, a push of any branch and of any tag.
  const all = "push" in events && push?.branches === undefined && push?.tags === undefined;
  const tags = all ? ["v*"] : (push?.tags ?? []);
  const branches = all ? ["**"] : (push?.branches ?? []);
  const head = { "github.event.pull_request.head.repo.full_name": "team/orders" };
  return [
    ...tags.map((tag) => start("tag", "push", `refs/tags/${exampleOf(tag)}`)),
    ...branches.map((name) => start("branch", "push", `refs/heads/${exampleOf(name)}`)),
    ...("pull_request" in events
      ? [start("pull request", "pull_request", "refs/pull/1/merge", head)]
      : []),
    ...("schedule" in events ? [start("clock", "schedule", "refs/heads/main")] : []),
    ...("workflow_dispatch" in events
      ? [start("hand", "workflow_dispatch", "refs/heads/main")]
      : []),
  ];
}

/** @param actionOf the steps of an action of the repository's own */
export function workflowHoles(
  workflow: Workflow,
  flow: Flow,
  actionOf: (path: string) => readonly Step[],
): string[] {
  const { on, permissions, jobs } = workflow;
  const holes: string[] = [];
  for (const event of typeof on === "object" ? Object.keys(on) : [String(on)]) {
    if (!EVENTS.includes(event)) holes.push(`starts by ${event}, which the rules do not know`);
  }
  if (!isWithin(permissions, { contents: "read" })) {
    holes.push("gives every job more than to read");
  }
  if (SECRET.test(JSON.stringify(workflow.env ?? {}))) holes.push("gives a secret to every job");
  for (const [name, job] of Object.entries(jobs)) {
    const found = [
      ...jobHoles(job, actionOf),
      ...startsOf(workflow)
        .filter(({ names }) => holds(job.if, names, false))
        .flatMap((start) => startHoles(start, job, permissions, flow)),
    ];
    holes.push(...new Set(found.map((hole) => `${name}: ${hole}`)));
  }
  return holes;
}

/** The permissions that a job has beyond some others. */
function isWithin(
  given: Readonly<Record<string, string>> | string | undefined,
  most: Readonly<Record<string, string>>,
): boolean {
  if (typeof given !== "object") return false;
  return Object.entries(given).every(
    ([key, value]) => value === "none" || most[key] === value || most[key] === "write",
  );
}

/** Rules for a job, however it is started. */
function jobHoles(job: Job, actionOf: (path: string) => readonly Step[]): string[] {
  const holes: string[] = [];
  if (SECRET.test(JSON.stringify(job.env ?? {}))) holes.push("gives a secret to every step");
  const pushes = job.permissions?.["contents"] === "write";
  const hasRole = job.environment !== undefined || job.permissions?.["id-token"] === "write";
  const steps = job.steps.flatMap((step) =>
    step.uses?.startsWith("./") === true ? [step, ...actionOf(step.uses)] : [step],
  );
  for (const step of steps) {
    const { uses = "", run = "", with: given = {} } = step;
    if (/\$\{\{/.test(run)) holes.push("has a script with an expression in it");
    if (uses.includes("@") && !/@[0-9a-f]{40}$/.test(uses)) holes.push(`does not pin ${uses}`);
    if (SECRET.test(JSON.stringify(given))) holes.push(`gives ${uses} a secret as an input`);
    if (uses.startsWith("actions/checkout@")) {
      const { ref } = given;
      if (ref !== undefined && ref !== "${{ github.ref_name }}" && ref !== "main") {
        holes.push(`checks out ${String(ref)}`);
      }
      if (given["repository"] !== undefined) holes.push("checks out another repository");
      if (!pushes && given["persist-credentials"] !== false) {
        holes.push("keeps a token in a checkout that pushes nothing");
      }
    }
    holes.push(...dispatchHoles(step));
    if (!hasRole) continue;
    if (
      /\bgit (checkout|switch|worktree|reset|restore|merge(?!-base)|pull|read-tree)\b|gh pr checkout/.test(
        run,
      )
    )
      holes.push("runs on other files than those of its branch");
    if (/\bbaton\b.* preview\b/.test(run) && !/ --of "\$COMMIT"/.test(run))
      holes.push("previews otherwise than by a stack file as data");
  }
  const at = (text: string) => steps.findIndex(({ run }) => run?.includes(text));
  if (hasRole && at("last-deployed.sh") >= 0 && at("last-deployed.sh") < at("npm ci")) {
    holes.push("sets up the tool by other files than those of its branch");
  }
  return holes;
}

/** Rules for a step that starts a job on a branch: the repository names the branch, and no event does. */
function dispatchHoles({ run = "", env = {} }: Step): string[] {
  if (!run.includes("gh workflow run")) return [];
  const holes: string[] = [];
  const refs = [...run.matchAll(/--ref (\S+)/g)].map(([, ref]) => ref ?? "");
  const values = [...run.matchAll(/\bbranch=(\$\([^\n]*\)|\S+)/g)].map(([, value]) => value ?? "");
  const isKnown = (value: string) =>
    /^[a-z]+$/.test(value) ||
    /^\$\(git for-each-ref .* "refs\/remotes\/origin\/\$BRANCH"\)$/.test(value);
  if (refs.length === 0) holes.push("starts a job on the default branch, whichever that is");
  for (const ref of refs) {
    if (ref !== '"$branch"' && !isKnown(ref)) holes.push(`starts a job on ${ref}`);
  }
  for (const value of values) if (!isKnown(value)) holes.push(`starts a job on ${value}`);
  const { BRANCH } = env;
  if (BRANCH !== undefined && BRANCH !== "${{ matrix.branch }}") {
    holes.push(`starts a job on ${BRANCH}`);
  }
  return holes;
}

/** Rules for a job by what has started it. */
function startHoles(
  { by, name, names }: Start,
  job: Job,
  inherited: Workflow["permissions"],
  flow: Flow,
): string[] {
  const holes: string[] = [];
  const permissions = job.permissions ?? inherited;
  const environment = fill(job.environment ?? "", names);
  const scripts = job.steps.map(({ run = "" }) => run);
  const usesOwn = job.steps.some(({ uses }) => uses?.startsWith("./") === true);
  if (by === "tag" || by === "pull request") {
    const whose = `a ${by}`;
    if (job.environment !== undefined) holes.push(`${whose} starts it in an environment`);
    if (SECRET.test(JSON.stringify(job))) holes.push(`${whose} starts it with a secret`);
    if (permissions?.["id-token"] === "write") holes.push(`${whose} starts it with a role`);
    const most = by === "tag" ? { actions: "write" } : { actions: "write", contents: "read" };
    if (!isWithin(permissions, most)) holes.push(`${whose} starts it with more than to dispatch`);
    if (by === "tag" && job.steps.some(({ uses }) => uses !== undefined)) {
      holes.push("a tag starts it with more than a script of its own");
    }
    const canDispatch = permissions?.["actions"] === "write";
    if (
      (by === "tag" || canDispatch) &&
      (usesOwn || scripts.some((run) => RUNS_CHECKOUT.test(run)))
    ) {
      holes.push(`${whose} starts it on its own commit's code`);
    }
  }
  if (by === "branch") {
    if (environment !== "" && matches(protectedBranch(flow, environment), name) === undefined) {
      holes.push(`a push to ${name} starts it in ${environment}`);
    }
    const roles = JSON.stringify(job.steps).match(/AWS_ROLE_\w+/g) ?? [];
    if (environment === "" && roles.some((role) => role !== "AWS_ROLE_BUILD")) {
      holes.push(`a push to ${name} starts it with an environment's role`);
    }
  }
  if (by === "clock" || by === "hand") {
    if (JSON.stringify(job.steps).includes("AWS_ROLE_DEPLOY") && job.environment === undefined) {
      holes.push("deploys without naming an environment");
    }
    const reads = job.steps.flatMap(({ with: given }) => String(given?.["role"] ?? ""));
    if (reads.some((role) => /AWS_ROLE_PREVIEW \}\}(?!-\$\{\{ inputs\.environment)/.test(role))) {
      holes.push("reads with a role of more than one environment");
    }
  }
  return holes;
}

/** The script that takes other files into a job which has a role. */
export function scriptHoles(text: string): string[] {
  const holes: string[] = [];
  const lines = text.split("\n").filter((line) => !line.trimStart().startsWith("#"));
  const checkouts = lines.filter((line) =>
    /\bgit (checkout|switch|reset|restore|merge(?!-base))\b/.test(line),
  );
  if (checkouts.length === 0) holes.push("takes no stack file");
  for (const line of checkouts) {
    if (!/ -- 'Pulumi\.\*\.yaml'$/.test(line)) holes.push("takes more than stack files");
    const before = lines.slice(0, lines.indexOf(line)).join("\n");
    if (!/if git merge-base --is-ancestor "\$tag\^\{commit\}" HEAD; then$/.test(before)) {
      holes.push("takes them from a commit that is no part of the branch");
    }
  }
  if (!/"refs\/tags\/outcome\/\$project\/\$1\/"/.test(text)) {
    holes.push("reads the tags of other projects or environments");
  }
  return holes;
}

/** A stage of a Jenkinsfile: its name and text. */
function stagesOf(text: string): { name: string; body: string }[] {
  const code = text.replace(/^\s*\/\/.*$/gm, "");
  return code
    .split(/\bstage\('/)
    .slice(1)
    .map((part) => ({ name: part.slice(0, part.indexOf("'")), body: part }));
}

/** The file that each branch, tag and pull request brings its own copy of. */
export function jenkinsHoles(text: string): string[] {
  const holes: string[] = [];
  const all = text.replace(/^\s*\/\/.*$/gm, "");
  const ids = [...all.matchAll(/credentials(?:Id:\s*|\()'([^']+)'/g)].map(([, id]) => id ?? "");
  for (const id of ids.filter((one) => one !== "registry")) holes.push(`has the credentials ${id}`);
  if (/\bcredentials\(/.test(all)) holes.push("gives credentials to every stage");
  if (/label|node\s*\(/.test(all)) holes.push("chooses an agent");
  if (/\binput\s*\(/.test(all)) holes.push("asks people for their word");
  if (/baton\b[^\n]* (pipeline|deploy|approve|promote|request|rollback|record|drift)\b/.test(all)) {
    holes.push("deploys");
  }
  for (const { name, body } of stagesOf(text)) {
    const startsByTag = /\btag '/.test(body) || /buildingTag\(\)/.test(body);
    if (startsByTag && /\bsh\b|\bcheckout\b|\bagent\b|\bload\b|\bscript\b/.test(body)) {
      holes.push(`${name}: a tag starts it with more than a dispatch`);
    }
    const [before = "", ...after] = body.split("withCredentials");
    if (after.length > 0 && !/if \(!env\.CHANGE_ID\) \{\s*$/.test(before)) {
      holes.push(`${name}: a pull request has credentials`);
    }
  }
  return holes;
}

/** The file that the job with the credentials takes from the branch main. */
export function deployJenkinsHoles(text: string, flow: Flow): string[] {
  const holes: string[] = [];
  const all = text.replace(/^\s*\/\/.*$/gm, "");
  const checkouts = [...all.matchAll(/git (?:checkout|switch|reset|merge|worktree)\b[^'&]*/g)];
  const KNOWN = ['-B "$BRANCH" "refs/remotes/origin/$BRANCH"', "-B main origin/main"];
  for (const [command] of checkouts) {
    const what = command.replace(/^git \w+ /, "").trim();
    if (!KNOWN.includes(what)) holes.push(`checks out ${what}`);
  }
  if (/checkout(?! scm\b|\s+-)\s*[([]/.test(all)) holes.push("checks out by itself");
  if (/\bsh\s*\(?(script:\s*)?"/.test(all)) holes.push("puts a value into a script");
  if (/\b(load|evaluate|library|readTrusted)\b/.test(all)) holes.push("loads other code");
  const places = [...all.matchAll(/(?:node\(|label )["']([^"']*)["']/g)].map(([, place]) => place);
  const wrong = places.filter(
    (place) => !/^baton-(\$\{environment\}|[a-z0-9]+)$/.test(place ?? ""),
  );
  for (const place of wrong) holes.push(`runs on ${place ?? ""}`);
  const chosen = [...all.matchAll(/branch (==~?) '([^']+)' \? '(\w+)'/g)];
  const rows = flow.rows.flatMap((row) => ("branch" in row ? (row.promote ?? []) : []));
  if (chosen.length !== rows.length || !/if \(environment == ''\) \{\s*error\(/.test(all)) {
    holes.push("does not refuse each branch that is not protected");
  }
  for (const [, operator, pattern = "", environment = ""] of chosen) {
    const name = protectedBranch(flow, environment);
    const expected = operator === "==" ? name : name.replace("{version}", "[^/]+");
    if (pattern !== expected) holes.push(`deploys ${environment} from ${pattern}`);
  }
  return holes;
}

/** The settings of one environment for Pulumi Deployments. */
export interface Settings {
  readonly sourceContext: { readonly git: { readonly branch: string } };
  readonly vcs: {
    readonly deployCommits: boolean;
    readonly deployTags: boolean;
    readonly previewPullRequests: boolean;
    readonly pullRequestTemplate: boolean;
    readonly tagFilters: readonly string[];
  };
  readonly operationContext: {
    readonly preRunCommands: readonly string[];
    readonly options: { readonly skipInstallDependencies: boolean };
    readonly environmentVariables?: object;
  };
}

export function settingsHoles(settings: Settings, project: string, environment: string): string[] {
  const holes: string[] = [];
  const { sourceContext, vcs, operationContext } = settings;
  const branch = sourceContext.git.branch.replace(/^refs\/heads\//, "");
  if (vcs.deployCommits) holes.push("deploys each push");
  if (vcs.previewPullRequests || vcs.pullRequestTemplate) holes.push("runs pull requests");
  if (vcs.tagFilters.join() !== `deploy/${project}/${environment}/*`) {
    holes.push(`starts by the tags ${vcs.tagFilters.join()}`);
  }
  if (operationContext.environmentVariables !== undefined)
    holes.push("gives every command a value");
  const { preRunCommands } = operationContext;
  const tip = `refs/remotes/origin/${branch}`;
  const fetch = preRunCommands.findIndex(
    (command) =>
      command.startsWith("git fetch ") && command.includes(`+refs/heads/${branch}:${tip}`),
  );
  const check = preRunCommands.findIndex((command) =>
    new RegExp(
      `^git --no-replace-objects merge-base --is-ancestor HEAD ${tip} \\|\\| \\{ echo '[^']*' >&2; exit 1; \\}$`,
    ).test(command),
  );
  if (check < 0) holes.push("does not check that the commit is merged");
  if (fetch < 0 || fetch > check) holes.push(`compares with another ${branch} than the remote's`);
  for (const command of preRunCommands.slice(0, Math.max(0, check))) {
    if (!/^(git (config|fetch) |if \[ "\$\(git rev-parse --is-shallow)/.test(command)) {
      holes.push(`runs ${command.split(" ").slice(0, 2).join(" ")} before it is checked`);
    }
  }
  if (!operationContext.options.skipInstallDependencies) holes.push("installs by itself");
  return holes;
}

/** A policy of AWS as it is sent. */
type Sent = Omit<PolicyDocument, "Statement"> & {
  readonly Statement: readonly {
    readonly Effect: string;
    readonly Action: string | readonly string[];
    readonly Resource?: string | readonly string[];
    readonly Condition?: Readonly<
      Record<string, Readonly<Record<string, string | readonly string[]>>>
    >;
  }[];
};

function listOf(value: string | readonly string[] | undefined): readonly string[] {
  return typeof value === "string" ? [value] : (value ?? []);
}

/** The values that a trust policy compares a claim with. */
function claimOf(trust: Sent, claim: string): readonly string[] {
  return trust.Statement.flatMap(({ Condition = {} }) =>
    Object.values(Condition).flatMap((terms) =>
      Object.entries(terms).flatMap(([key, value]) =>
        key.endsWith(`:${claim}`) ? listOf(value) : [],
      ),
    ),
  );
}

/**
 * A role for jobs on GitHub.
 * @param purpose `build`, `preview-prod`, `deploy-prod` …
 */
export function roleHoles(
  purpose: string,
  { trust, policy }: { readonly trust: Sent; readonly policy: Sent },
  roles: RolesConfig,
  flow: Flow,
  project: string,
): string[] {
  const holes: string[] = [];
  const [kind = "", environment = ""] = purpose.split("-");
  const subjects = claimOf(trust, "sub");
  if (claimOf(trust, "aud").join() !== "sts.amazonaws.com") holes.push("trusts another audience");
  if (subjects.length === 0) holes.push("trusts every job");
  const start = `repo:${roles.github.repository}:ref:refs/heads/`;
  for (const subject of subjects) {
    if (!subject.startsWith(start)) {
      holes.push(`trusts ${subject}`);
      continue;
    }
    if (kind === "build") continue;
    const name = protectedBranch(flow, environment).replace("{version}", "*");
    const context = kind === "deploy" ? `environment:${environment}` : `ref:refs/heads/${name}`;
    if (subject !== `${start}${name}:${context}`) holes.push(`trusts ${subject}`);
  }
  const { upstream, followers = [] } = roles.deploy[environment] ?? {};
  const own = [environment, ...followers];
  const bucket = roles.state?.bucket ?? "";
  const isState = (resource: string, names: readonly string[]) =>
    names.some((name) =>
      ["stacks", "history", "backups", "locks/organization"].some((folder) =>
        new RegExp(`^${bucket}/\\.pulumi/${folder}/${project}/${name}(\\.json\\*|/\\*)$`).test(
          resource,
        ),
      ),
    );
  const keys = own.flatMap((name) => roles.deploy[name]?.kmsKey ?? []);
  for (const { Effect, Action, Resource } of policy.Statement) {
    if (Effect !== "Allow") continue;
    for (const action of listOf(Action)) {
      if (action.includes("*")) holes.push(`may do ${action}`);
      if (/^(iam|sts):/.test(action)) holes.push(`may do ${action}`);
      const writes = /^(s3:(Put|Delete)Object|ecr:PutImage)$/.test(action);
      if (kind === "preview" && writes) holes.push(`writes by ${action}`);
      for (const resource of listOf(Resource)) {
        const reads =
          resource === `${bucket}/.pulumi/meta.yaml` ||
          resource === `${bucket}/.pulumi/stacks/${project}/${upstream ?? ""}.json*` ||
          isState(resource, own);
        if (action === "s3:GetObject" && !reads) holes.push(`reads ${resource}`);
        if (/^s3:(Put|Delete)Object$/.test(action) && !isState(resource, [environment]))
          holes.push(`writes ${resource}`);
        if (action.startsWith("kms:") && (action !== "kms:Decrypt" || !keys.includes(resource)))
          holes.push(`uses the key ${resource} by ${action}`);
      }
    }
  }
  return holes;
}

/** The trust policy of a role for runs of Pulumi Cloud. */
export function runTrustHoles(trust: Sent, organization: string, project: string, stack: string) {
  const holes: string[] = [];
  const start = `pulumi:deploy:org:${organization}:project:${project}:stack:${stack}:operation:`;
  const subjects = claimOf(trust, "sub");
  if (subjects.length === 0) holes.push("trusts every run");
  if (claimOf(trust, "aud").join() !== organization) holes.push("trusts another audience");
  for (const subject of subjects) {
    if (!subject.startsWith(start)) holes.push(`trusts ${subject}`);
    else if (!/^(update|refresh|detect-drift):\*$/.test(subject.slice(start.length)))
      holes.push(`trusts ${subject.slice(start.length)}`);
  }
  return holes;
}
