import * as assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { deploy } from "../../cli/deploy";
import type { Report } from "../../cli/context";
import { unhold } from "../../cli/hold";
import { request } from "../../cli/request";
import { rollback } from "../../cli/rollback";
import { unapproved } from "../../ledger/program-check";
import type { Tree } from "../../release/merge";
import { formatProblems } from "../../release/problem";
import { targetOf, type Running } from "../../release/way-back";
import { ToolScene } from "../support/tool";

const DEV = "config:\n  baton:imageTag: build-1\n";
const QA = `config:
  baton:upstream: dev
  baton:approval: { required: 1 }
`;
const IMAGE = "spec.template.spec.containers[0].image";
const REFERENCE = "spec.template.spec.containers[0].envFrom[0].configMapRef.name";
const SECRET = "4dabf18193072939515e22adb298388d";

/** What stands in the cluster, and in the state, of a release. */
interface World {
  /** The number in all tags of the release. */
  readonly release: number;
  readonly replicas: number;
  readonly settings: Readonly<Record<string, string>>;
  /** The secret's ciphertext, and when it was changed last. */
  readonly secret: { readonly ciphertext: string; readonly modified: string };
  /** A part of the settings' generated names. */
  readonly generated: string;
  /** Beside the release. */
  readonly budget: number | undefined;
  readonly status: number;
  /** Whether the Deployment is looked for in the cluster. */
  readonly isFound?: boolean;
}

const NOW: World = {
  release: 1,
  replicas: 2,
  settings: { LOG_LEVEL: "info", LIMIT: "10" },
  secret: { ciphertext: "v1:a", modified: "2026-12-01T00:00:00Z" },
  generated: "f00d",
  budget: 1,
  status: 2,
};

const urn = (types: string, name: string) => `urn:pulumi:qa::baton::${types}::${name}`;
const CONFIG = "baton:components:Settings$kubernetes:core/v1:ConfigMap";
const HIDDEN = "baton:components:Settings$kubernetes:core/v1:Secret";
const WEB = urn("baton:components:Workload$kubernetes:apps/v1:Deployment", "web");
const BUDGET = urn("baton:components:Workload$kubernetes:policy/v1:PodDisruptionBudget", "web");

function autonamed(name: string): Tree {
  return { name, annotations: { "pulumi.com/autonamed": "true" } };
}

/** What the program wants of each resource, by URN. */
function wanted(world: World): Readonly<Record<string, Tree>> {
  const { release, replicas, settings, generated, budget, isFound = false } = world;
  const name = `settings-dev-${release}`;
  const labels = { "baton/image-tag": `dev-${release}` };
  const containers = [
    {
      image: `example.com/web@sha256:${release}`,
      envFrom: [{ configMapRef: { name: `${name}-${generated}` } }],
    },
  ];
  const template = { metadata: { labels }, spec: { containers } };
  return {
    [urn(CONFIG, name)]: { metadata: autonamed(`${name}-${generated}`), data: settings },
    [urn(HIDDEN, name)]: { metadata: autonamed(`${name}-${generated}`), data: "[secret]" },
    [WEB]: {
      ...(isFound ? { apiVersion: "apps/v1", kind: "Deployment" } : {}),
      metadata: { name: "web", namespace: "qa", labels },
      spec: { replicas, template },
    },
    ...(budget === undefined
      ? {}
      : { [BUDGET]: { metadata: { name: "web" }, spec: { maxUnavailable: budget } } }),
  };
}

/** The resources of a state, as `pulumi stack export` has them. */
function stateOf(world: World): Tree[] {
  const { secret, status } = world;
  return Object.entries(wanted(world)).map(([id, inputs]) => {
    const data = id.includes(":Secret::")
      ? { data: { [SECRET]: "1b47061264138c4ac30d75fd1eb44270", ciphertext: secret.ciphertext } }
      : {};
    const own = { ...inputs, ...data };
    const annotations = { "deployment.kubernetes.io/revision": String(status) };
    const outputs = { ...own, status: { readyReplicas: status }, managed: { annotations } };
    const { modified } = secret;
    return { urn: id, type: id.split("::")[2]?.split("$").at(-1), inputs: own, outputs, modified };
  });
}

/** A preview from one world to another, as Pulumi's providers tell it. */
function stepsOf(from: World, to: World): Tree[] {
  const [former, next] = [wanted(from), wanted(to)];
  const created = Object.keys(next).filter((id) => !(id in former));
  const deleted = Object.keys(former).filter((id) => !(id in next));
  const settings = urn(CONFIG, `settings-dev-${to.release}`);
  const keys = [...new Set([...Object.keys(from.settings), ...Object.keys(to.settings)])];
  const data = keys.filter((key) => from.settings[key] !== to.settings[key]);
  const differing = {
    [settings]: settings in former ? data.map((key) => `data.${key}`) : [],
    [WEB]: [
      ...(from.replicas === to.replicas ? [] : ["spec.replicas"]),
      ...(from.generated === to.generated && from.release === to.release ? [] : [REFERENCE]),
      ...(from.release === to.release ? [] : [IMAGE, 'metadata.labels["baton/image-tag"]']),
    ],
    [BUDGET]: from.budget === to.budget ? [] : ["spec.maxUnavailable"],
  };
  const step = (op: string, id: string, paths: readonly string[] = []) => ({
    op,
    urn: id,
    ...(id in next ? { newState: { inputs: next[id], outputs: next[id] } } : {}),
    detailedDiff: Object.fromEntries(paths.map((path) => [path, { kind: "update" }])),
  });
  const changed = Object.entries(differing).flatMap(([id, paths]) =>
    paths.length === 0 || !(id in former) || !(id in next)
      ? []
      : [step(id === settings ? "replace" : "update", id, paths)],
  );
  return [
    ...created.map((id) => step("create", id)),
    ...changed,
    ...deleted.map((id) => step("delete", id)),
  ];
}

const KINDS = { resources: [{ name: "deployments", kind: "Deployment", namespaced: true }] };

/** A Kubernetes API that answers these paths. */
async function clusterWith(answers: Readonly<Record<string, object>>) {
  const api = createServer(({ url = "" }, response) => {
    const answer = answers[url];
    response.writeHead(answer === undefined ? 404 : 200, { "content-type": "application/json" });
    response.end(JSON.stringify(answer ?? {}));
  });
  await new Promise<void>((resolve) => api.listen(0, "127.0.0.1", resolve));
  const folder = await mkdtemp(join(tmpdir(), "baton-kubernetes-"));
  const { port } = api.address() as AddressInfo;
  const server = `http://127.0.0.1:${port}`;
  const former = process.env["KUBECONFIG"];
  process.env["KUBECONFIG"] = join(folder, "kubeconfig");
  const kubeconfig = {
    "current-context": "qa",
    contexts: [{ name: "qa", context: { cluster: "qa", user: "qa" } }],
    clusters: [{ name: "qa", cluster: { server, "insecure-skip-tls-verify": true } }],
    users: [{ name: "qa", user: {} }],
  };
  await writeFile(process.env["KUBECONFIG"], JSON.stringify(kubeconfig));
  return {
    stop: async () => {
      process.env["KUBECONFIG"] = former;
      if (former === undefined) delete process.env["KUBECONFIG"];
      api.closeAllConnections();
      api.close();
      await rm(folder, { recursive: true });
    },
  };
}

describe("what an approval starts from", () => {
  let scene: ToolScene;
  /** dev-1 runs in qa, approved by bob. */
  let deployed: () => void;
  before(async () => {
    scene = await ToolScene.open({ dev: DEV, qa: QA });
    is(NOW, NOW);
    scene.hasDeployed("dev", "build-1", "dev-1");
    await asked();
    assert.equal((await deployedByTool()).outcome, "done", scene.printed.join("\n"));
    deployed = scene.keep();
  });
  beforeEach(() => deployed());
  after(async () => scene.remove());

  /** What stands in qa from now on, and what the program wants there. */
  let present: World;
  const is = (world: World, to: World) => {
    present = world;
    scene.hasState("qa", stateOf(world), stepsOf(world, to));
  };
  const say = async (person: string) => {
    scene.as(person);
    const { ledger } = await scene.context();
    await ledger.say((await ledger.request("qa")) ?? assert.fail("no request"), "approve");
    scene.as("ann");
  };
  const asked = async () => {
    await request(await scene.context(), "qa", {});
    await say("bob");
  };
  /** Asks for a change of the world, as of now, and lets bob approve it. */
  const asks = async (to: World, from: World = NOW) => {
    const build = `build-${to.release}`;
    scene.hasDeployed("dev", build, `dev-${to.release}`);
    // What differs in the world is set in the stack file, too.
    const said = JSON.stringify({ LOG_LEVEL: "info", N: JSON.stringify(to) });
    const text = scene.read("Pulumi.qa.yaml").replace(/ {2}baton:settings.*\n/, "");
    scene.write("Pulumi.qa.yaml", `${text}  baton:settings: { config: ${said} }\n`);
    is(from, to);
    await asked();
  };
  const deployedByTool = async (): Promise<Report> =>
    deploy(await scene.context(), "qa", { yes: true });
  /** What the program says that runs in a plain `pulumi up`: it knows outputs, and decrypted secrets. */
  const saidByProgram = async () => {
    const config = scene.config("qa");
    const given = Object.entries(config).map(([key, value]): [string, string] => [
      key,
      typeof value === "string" ? value : JSON.stringify(value),
    ]);
    const defaults = JSON.stringify({
      registry: { kind: "oci", repository: `${scene.registry.host}/podinfo`, plainHttp: true },
    });
    const environment = { ...process.env };
    process.env["NPM_CONFIG_USERCONFIG"] = "/dev/null";
    const problems = await unapproved({
      folder: scene.folder,
      environment: "qa",
      given: { "baton:defaults": defaults, ...Object.fromEntries(given) },
      digest: String(config["baton:imageDigest"]),
      now: new Date(),
      running: () => Promise.resolve(targetOf(scene.runs("qa") as unknown as Running)),
      state: () =>
        Promise.resolve(
          stateOf(present).map(({ urn: id, outputs }) => {
            const { data, ...rest } = outputs as Tree;
            const plain = String(id).includes(":Secret::") ? { TOKEN: "aHVudGVyMg==" } : data;
            return { urn: String(id), outputs: { ...rest, data: plain } };
          }),
        ),
    }).finally(() => {
      process.env["NPM_CONFIG_USERCONFIG"] = environment["NPM_CONFIG_USERCONFIG"];
      if (environment["NPM_CONFIG_USERCONFIG"] === undefined) {
        delete process.env["NPM_CONFIG_USERCONFIG"];
      }
    });
    return formatProblems(problems);
  };
  /** Both refuse, and name what moved; a secret only the tool can tell from its former one. */
  const refused = async (by: "tool" | "both", ...named: RegExp[]) => {
    await assert.rejects(deployedByTool(), ({ message }: Error) => {
      for (const name of named) assert.match(message, name);
      return true;
    });
    if (by === "tool") return;
    const said = await saidByProgram();
    for (const name of named) assert.match(said, name);
  };
  const passes = async () => {
    assert.equal(await saidByProgram(), "");
    assert.equal((await deployedByTool()).outcome, "done", scene.printed.join("\n"));
  };
  const anew = /ask anew with `baton request qa`/i;

  const SCALED = { ...NOW, replicas: 3 };
  const NEXT: World = { ...NOW, release: 2, generated: "beef" };
  const QUIET = { ...NOW, settings: { ...NOW.settings, LOG_LEVEL: "warn" }, generated: "beef" };

  it("passes where nothing has moved", async () => {
    for (const to of [SCALED, NEXT, QUIET]) {
      deployed();
      await asks(to);
      is(NOW, to);
      await passes();
    }
  });

  it("is refused where a number of pods is another one by now", async () => {
    await asks(SCALED);
    is({ ...NOW, replicas: 8 }, SCALED);
    const moved = /qa: Deployment web spec\.replicas is 8 now; expected what it was when this/;
    await refused("both", moved, anew);
    await request(await scene.context(), "qa", {});
    assert.equal((await deployedByTool()).outcome, "waiting");
    await say("bob");
    await passes();
  });

  it("is refused where settings were changed that the request does not change", async () => {
    await asks(QUIET);
    const incident = { LOG_LEVEL: "info", LIMIT: "500", SHED: "on" };
    is({ ...NOW, settings: incident, generated: "cafe" }, QUIET);
    await refused("both", /ConfigMap settings-dev-1 data\.LIMIT is 500 now/);
    await refused("tool", /ConfigMap settings-dev-1 data\.SHED is on now/);
  });

  it("is refused where only a setting was added", async () => {
    await asks(QUIET);
    is({ ...NOW, settings: { ...NOW.settings, SHED: "on" }, generated: "cafe" }, QUIET);
    await refused("both", /ConfigMap settings-dev-1 data\.SHED is on now/);
  });

  it("is refused where the former release's settings are others by now", async () => {
    await asks(NEXT);
    is({ ...NOW, settings: { ...NOW.settings, LIMIT: "500" }, generated: "cafe" }, NEXT);
    await refused("both", /ConfigMap settings-dev-1 data\.LIMIT is 500 now/);
  });

  it("is refused where another image runs by now", async () => {
    await asks(NEXT);
    const state = stateOf(NOW).map((one) =>
      JSON.stringify(one).replaceAll("@sha256:1", "@sha256:9"),
    );
    scene.pulumi("qa.resources", `[${state.join(",")}]`);
    await refused(
      "tool",
      /Deployment web spec\.template\.spec\.containers\[0\]\.image is .*:9 now/,
    );
  });

  it("is refused where a secret was changed, and not where it was only encrypted anew", async () => {
    await asks(NEXT);
    const secret = { ciphertext: "v1:b", modified: "2026-12-02T00:00:00Z" };
    is({ ...NOW, secret }, NEXT);
    await refused("tool", /Secret settings-dev-1 data is another one now/);
    is({ ...NOW, secret: { ...NOW.secret, ciphertext: "v1:c" } }, NEXT);
    await passes();
  });

  it("hashes nothing of a secret whose ciphertext is not there", async () => {
    is(NOW, NEXT);
    const plain = stateOf(NOW).map((one): unknown => {
      const undated = JSON.stringify({ ...one, modified: undefined });
      return JSON.parse(undated.replace(/\{"4dab[^}]*\}/g, '{"A":"x"}'));
    });
    await asks(NEXT);
    assert.match(scene.git("log", "-1", "--format=%B"), /\nBaton-Start: \S*Secret settings-dev-2 /);
    deployed();
    scene.hasDeployed("dev", "build-2", "dev-2");
    scene.hasState("qa", plain as object[], stepsOf(NOW, NEXT));
    await asked();
    const message = scene.git("log", "-1", "--format=%B");
    assert.match(message, /\nBaton-Start: \S*ConfigMap settings-dev-2 settings-dev-1 /);
    assert.doesNotMatch(message, /\nBaton-Start: \S*Secret/);
  });

  it("is refused where a changed object is gone", async () => {
    await asks({ ...NOW, budget: 2 });
    is({ ...NOW, budget: undefined }, { ...NOW, budget: 2 });
    await refused("both", /PodDisruptionBudget web/);
  });

  it("is refused where an object was added under the name of one to be created", async () => {
    const without = { ...NOW, budget: undefined };
    await asks({ ...NOW, budget: 2 }, without);
    is({ ...NOW, budget: 7 }, { ...NOW, budget: 2 });
    await refused("tool", /PodDisruptionBudget web spec\.maxUnavailable is 7 now/);
  });

  it("passes where other objects, a status and annotations of controllers have moved", async () => {
    await asks(SCALED);
    is({ ...NOW, budget: 5, status: 9 }, { ...SCALED, budget: 5 });
    await passes();
  });

  it("passes for what is carried on with after the deployment itself has begun", async () => {
    for (const to of [SCALED, QUIET, NEXT]) {
      deployed();
      await asks(to);
      // All is there but the end: in the state, in parts and as a whole.
      is({ ...to, budget: 1 }, to);
      await passes();
    }
  });

  it("is refused after somebody went back by hand", async () => {
    scene.hasDeployed("dev", "build-2", "dev-2");
    await asked();
    await deployedByTool();
    await asks({ ...NOW, release: 3 });
    const { ledger } = await scene.context();
    const asking = (await ledger.request("qa")) ?? assert.fail("no request");
    assert.equal((await rollback(await scene.context(), "qa", {})).outcome, "done");
    // What a checkout of the request's commit has.
    scene.git("checkout", "--quiet", asking.commit, "--", "Pulumi.qa.yaml");
    await refused("both", /the request is made before dev-1 was rolled back to \(outcome\//, anew);
  });

  it("is refused after a deployment without approval, also where that was not recorded yet", async () => {
    await asks(NEXT);
    is(NOW, NEXT);
    const outputs = JSON.parse(scene.read(".pulumi/qa.json")) as object;
    scene.pulumi("qa.json", JSON.stringify({ ...outputs, breakGlass: "down" }));
    await refused("both", /the request is made before dev-1 was deployed without approval/, anew);
  });

  it("is refused after another request's deployment", async () => {
    await asks({ ...NOW, release: 2, generated: "beef" });
    const { ledger } = await scene.context();
    const other = (await ledger.request("qa")) ?? assert.fail("no request");
    await asks({ ...NOW, release: 3, generated: "cafe" });
    const { commit, tag, digest, plan, parts, id } = other;
    const outcome = { environment: "qa", result: "failed", tag, digest, commit, plan } as const;
    await ledger.record({ ...outcome, parts, request: id }, new Date());
    await refused("both", /the request is made before dev-2 failed/, anew);
  });

  it("passes after the request's own failure", async () => {
    await asks(NEXT);
    scene.pulumi("up-fails", "dev-2");
    assert.equal((await deployedByTool()).outcome, "went-back");
    scene.pulumi("up-fails", undefined);
    await unhold(await scene.context(), "dev-2", { reason: "try again" });
    scene.git("checkout", "--quiet", "HEAD", "--", "Pulumi.qa.yaml");
    is(NOW, NEXT);
    await passes();
  });

  it("is asked anew where a former version made the request", async () => {
    await asks(NEXT);
    const message = scene.git("log", "-1", "--format=%B");
    const words = scene.git("tag", "--points-at", "HEAD").split("\n");
    const former = message.replace(/^Baton-(After|Start): .*\n?/gm, "");
    scene.git("commit", "--quiet", "--amend", "-m", former);
    scene.git("tag", "-d", ...words);
    await say("bob");
    await refused("both", /the request is made without the state that it starts from/, anew);
    const { ledger } = await scene.context();
    const id = (await ledger.request("qa"))?.id;
    await asked();
    assert.notEqual((await ledger.request("qa"))?.id, id);
    await passes();
  });

  it("is refused where the cluster has another value than the state", async () => {
    const found = { apiVersion: "apps/v1", kind: "Deployment" };
    const kubernetes = await clusterWith({
      "/apis/apps/v1": KINDS,
      "/apis/apps/v1/namespaces/qa/deployments/web": {
        ...found,
        metadata: { name: "web" },
        spec: { replicas: 8 },
      },
    });
    try {
      const [now, to] = [
        { ...NOW, isFound: true },
        { ...SCALED, isFound: true },
      ];
      await asks(to, now);
      const moved =
        /qa: Deployment web spec\.replicas is 8 in the cluster, and another one in the state/;
      await refused("tool", moved, /pulumi refresh --stack qa/);
      await asks({ ...to, replicas: 8 }, now);
      assert.equal((await deployedByTool()).outcome, "done");
    } finally {
      await kubernetes.stop();
    }
  });

  it("keeps no value in the request, and salts each hash", async () => {
    await asks(SCALED);
    const lines = () =>
      scene
        .git("log", "-1", "--format=%B")
        .split("\n")
        .filter((line) => line.startsWith("Baton-Start: "));
    const first = lines();
    assert.equal(first.length, 1);
    assert.match(first[0] ?? "", /Deployment web = [\w-]{43} spec\.replicas=[\w-]{43}$/);
    deployed();
    await asks(SCALED);
    assert.notDeepEqual(lines(), first);
  });

  it("is made again by the next request where it has moved", async () => {
    await asks(SCALED);
    const commit = scene.git("rev-parse", "HEAD");
    await request(await scene.context(), "qa", {});
    assert.equal(scene.git("rev-parse", "HEAD"), commit);
    is({ ...NOW, replicas: 8 }, SCALED);
    await request(await scene.context(), "qa", {});
    assert.notEqual(scene.git("rev-parse", "HEAD"), commit);
  });
});
