import { execa } from "execa";
import * as assert from "node:assert/strict";
import { setTimeout } from "node:timers/promises";
import { until } from "../../sandbox/cluster";
import { BAKE, Delivery, STRATEGIES, type Ran, type Trial } from "../../sandbox/delivery";
import { startGateway } from "../../sandbox/gateway";
import type { LoadResult, RunningLoad } from "../../sandbox/load";
import { onSandbox, startSandbox } from "./scene";
import { Proxy } from "./proxy";

const PROJECT = "e2e-delivery";
const PREFIX = "baton-delivery-";
const PER_SECOND = 50;
/** Longer than any deployment here; a load is stopped when its test has seen what it needs. */
const LONG = 600;
/** How long the tests wait for something to come to hold, in seconds. */
const PATIENCE = 240;
/** The share of the bake after which the late one fails. */
const LATE = 0.6;

/** The one that no probe and no suite sees. */
const SHORT = "fails only under load";
/** Releases that go wrong, and what the tool must say of them. */
const BAD: Readonly<Record<string, { readonly fault: string; readonly says: RegExp }>> = {
  "fails at once": { fault: "errors:1", says: /error-rate is [\d.]+ %; expected at most 1 %/ },
  [SHORT]: {
    fault: "errors-under-load:5",
    says: /error-rate is [\d.]+ %; expected at most 1 %/,
  },
  "gets slow": { fault: "latency:1500", says: /latency-p95 is [\d.]+ s; expected at most 1 s/ },
};

/** Every strategy; the canary also where an HTTPRoute's weights divide its callers. */
const WAYS = [
  ...STRATEGIES.map((strategy) => ({ name: strategy, strategy, isBehindGateway: false })),
  { name: "canary by HTTPRoute", strategy: "canary", isBehindGateway: true },
];

for (const { name, strategy, isBehindGateway } of WAYS) {
  const under = `under a constant load of ${PER_SECOND} requests a second`;
  describe(`${name}, ${under}${isBehindGateway ? " (long)" : ""}`, () => {
    let scene: Delivery;
    let stable: Trial;
    let load: RunningLoad | undefined;
    let deployment: Promise<Ran> | undefined;
    let endGateway: (() => Promise<void>) | undefined;
    const proxy = new Proxy();
    const rows: unknown[][] = [];

    before(async function () {
      if (!onSandbox) this.skip();
      await startSandbox();
      await proxy.start();
      if (isBehindGateway) endGateway = await startGateway();
      const options = { prometheus: proxy.url, isBehindGateway };
      scene = await Delivery.open(PROJECT, PREFIX, strategy, options);
      stable = await scene.make("");
      await scene.begin(stable);
    });
    afterEach(async () => {
      load?.stop();
      await load?.result;
      load = undefined;
      // One that its test has given up must not meet the next.
      await deployment;
    });
    after(async () => {
      if (!onSandbox) return;
      proxy.stop();
      console.log(formatTable(rows));
      await Delivery.clean(PROJECT, PREFIX);
      await endGateway?.();
    });

    /** Puts load on the environment while a release is deployed. */
    const underLoad = async (next: Trial, deploy: () => Promise<Ran>) => {
      await scene.request(next);
      load = await scene.load(PER_SECOND, LONG, [stable, next]);
      // What clients meet before and after belongs to it, too.
      await setTimeout(2000);
      const ran = await deploy();
      await setTimeout(2000);
      load.stop();
      const result = await load.result;
      console.log(ran.text.replace(/^/gm, "      | "), JSON.stringify(result));
      return { ran, result };
    };

    /** Everybody is served by one version, and by nobody else. */
    const servesOnly = async (trial: Trial) => {
      const { requests, failures, byVersion } = await (await scene.load(20, 3, [trial])).result;
      assert.equal(failures, 0, "failures afterwards");
      assert.equal(byVersion[trial.version]?.requests, requests, "answers of the stable version");
      assert.equal(await scene.runs(), trial.tag);
    };

    /** Nobody met an error that the change, and not the bad release itself, had caused. */
    const noneLost = ({ byVersion }: LoadResult, bad?: Trial) => {
      for (const [version, { failures }] of Object.entries(byVersion)) {
        // An answer that takes too long to come names nobody.
        if (version !== bad?.version) assert.equal(failures, 0, `failures of ${version}`);
      }
    };

    const isDeployed = async (release: string, next: Trial, ran: Ran, result: LoadResult) => {
      rows.push(formatRow(name, release, next, ran, result));
      assert.equal(ran.exitCode, 0, ran.text);
      noneLost(result);
      assert.ok((result.byVersion[next.version]?.requests ?? 0) > 0, "nobody met the release");
      assert.ok(await scene.hasEarned(next));
      stable = next;
      await servesOnly(stable);
    };
    const isWithdrawn = async (
      release: string,
      next: Trial,
      { ran, result }: { readonly ran: Ran; readonly result: LoadResult },
      says: RegExp,
      since?: number,
    ) => {
      rows.push(formatRow(name, release, next, ran, result, since));
      assert.notEqual(ran.exitCode, 0, ran.text);
      assert.match(ran.text, says);
      noneLost(result, next);
      assert.ok(!(await scene.hasEarned(next)));
      await servesOnly(stable);
    };

    /** Waits until the bake has come so far, in seconds for which the release was good. */
    const bakesFor = (good: number) =>
      until("the bake", async () => ((await scene.bake())?.good ?? -1) >= good, PATIENCE);

    const start = () => {
      const deploying = scene.start("deploy", scene.environment, "--yes");
      const ended = deploying.then(({ exitCode, all }): Ran => ({ exitCode, text: all }));
      deployment = ended;
      return { deploying, ended };
    };

    it("a good release takes over, and nobody meets an error (long)", async () => {
      const next = await scene.make("");
      const { ran, result } = await underLoad(next, () => scene.deploy());
      await isDeployed("good", next, ran, result);
    });

    for (const [what, { fault, says }] of Object.entries(BAD)) {
      const length = strategy !== "rolling" && what === SHORT ? "" : " (long)";
      it(`one that ${what} is withdrawn, and has not earned its tag${length}`, async () => {
        const next = await scene.make(fault);
        await isWithdrawn(what, next, await underLoad(next, () => scene.deploy()), says);
      });
    }

    it(`one that fails after ${LATE * 100} % of its bake is withdrawn (long)`, async () => {
      const next = await scene.make("errors-once-told");
      const ran = await underLoad(next, async () => {
        const { ended } = start();
        await bakesFor(LATE * BAKE);
        await scene.tell(next);
        return ended;
      });
      const says = new RegExp(`failed its bake, after (9|1\\d) s of ${BAKE} s:\\n.*error-rate is`);
      await isWithdrawn(`fails after ${LATE * 100} % of the bake`, next, ran, says);
    });

    it("one that is aborted in its bake from elsewhere is withdrawn (long)", async () => {
      const next = await scene.make("");
      let since = 0;
      const ran = await underLoad(next, async () => {
        const { ended } = start();
        await bakesFor(3);
        since = Date.now();
        const aborted = await scene.baton("abort", scene.environment, "--reason", "not today");
        assert.equal(aborted.exitCode, 0, aborted.text);
        return ended;
      });
      await isWithdrawn("aborted", next, ran, /aborted by ann@example\.com: not today/, since);
    });

    it("a run that is killed in its bake is carried on by the same command (long)", async () => {
      const next = await scene.make("");
      const { ran, result } = await underLoad(next, async () => {
        const { deploying, ended } = start();
        await bakesFor(3);
        const { stdout } = await execa("pgrep", ["-f", `^pulumi up .*${PROJECT}`]);
        for (const pid of stdout.split("\n")) process.kill(Number(pid), "SIGKILL");
        deploying.kill("SIGKILL");
        await ended;
        return scene.deploy();
      });
      await isDeployed("killed, and run again", next, ran, result);
    });

    it("a bake waits for a Prometheus that goes away, and passes once it is back (long)", async () => {
      const next = await scene.make("");
      const { ran, result } = await underLoad(next, async () => {
        const { deploying, ended } = start();
        await bakesFor(3);
        proxy.stop();
        try {
          await setTimeout((BAKE + 5) * 1000);
          assert.ok(!(await scene.hasEarned(next)), "a tag for what nobody could judge");
          assert.equal(deploying.exitCode, null);
        } finally {
          await proxy.start();
        }
        return ended;
      });
      await isDeployed(`Prometheus gone for ${BAKE + 5} s`, next, ran, result);
    });
  });
}

const HEAD = [
  ...["strategy", "release", "outcome", "requests", "failed, but not by the release"],
  ...["answered by the release", "from its first failure, or the abort, to its last answer"],
];

/**
 * What happened, as a row of a table for docs.
 * @param since when it was to go, if that was not with its first failure
 */
function formatRow(
  strategy: string,
  release: string,
  next: Trial,
  ran: Ran,
  load: LoadResult,
  since?: number,
) {
  const outcome = ran.exitCode === 0 ? "deployed" : "withdrawn";
  const met = load.byVersion[next.version];
  const begins = since ?? met?.firstFailure;
  const span = begins === undefined ? undefined : (met?.last ?? begins) - begins;
  const others = load.failures - (met?.failures ?? 0);
  const back = span === undefined ? "–" : `${(span / 1000).toFixed(1)} s`;
  return [strategy, release, outcome, load.requests, others, met?.requests ?? 0, back];
}

function formatTable(rows: readonly (readonly unknown[])[]): string {
  const lines = [HEAD, HEAD.map(() => "---"), ...rows];
  return lines.map((row) => `| ${row.join(" | ")} |`).join("\n");
}
