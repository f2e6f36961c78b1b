import { execa } from "execa";
import * as assert from "node:assert/strict";
import { setTimeout } from "node:timers/promises";
import { until } from "../../../sandbox/cluster";
import { BAKE, Delivery, STRATEGIES, type Ran, type Trial } from "../../../sandbox/delivery";
import type { LoadResult, RunningLoad } from "../../../sandbox/load";
import { sandboxProcess } from "../scene";
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

/** Releases that go wrong, and what the tool must say of them. */
const BAD: Readonly<Record<string, { readonly fault: string; readonly says: RegExp }>> = {
  "fails at once": { fault: "errors:1", says: /error-rate is [\d.]+ %; expected at most 1 %/ },
  "fails only under load": {
    fault: "errors-under-load:5",
    says: /error-rate is [\d.]+ %; expected at most 1 %/,
  },
  "gets slow": { fault: "latency:1500", says: /latency-p95 is [\d.]+ s; expected at most 1 s/ },
};

for (const strategy of STRATEGIES) {
  describe(`${strategy}, under a constant load of ${PER_SECOND} requests a second`, () => {
    let scene: Delivery;
    let stable: Trial;
    let load: RunningLoad | undefined;
    let deployment: Promise<Ran> | undefined;
    const proxy = new Proxy();
    const rows: unknown[][] = [];

    before(async () => {
      await sandboxProcess("up");
      await proxy.start();
      scene = await Delivery.open(PROJECT, PREFIX, strategy, { prometheus: proxy.url });
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
      proxy.stop();
      console.log(formatTable(rows));
      await Delivery.clean(PROJECT, PREFIX);
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
      rows.push(formatRow(strategy, release, next, ran, result));
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
    ) => {
      rows.push(formatRow(strategy, release, next, ran, result));
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

    it("a good release takes over, and nobody meets an error", async () => {
      const next = await scene.make("");
      const { ran, result } = await underLoad(next, () => scene.deploy());
      await isDeployed("good", next, ran, result);
    });

    for (const [what, { fault, says }] of Object.entries(BAD)) {
      it(`one that ${what} is withdrawn, and has not earned its tag`, async () => {
        const next = await scene.make(fault);
        await isWithdrawn(what, next, await underLoad(next, () => scene.deploy()), says);
      });
    }

    it(`one that fails after ${LATE * 100} % of its bake is withdrawn`, async () => {
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

    it("one that is aborted in its bake from elsewhere is withdrawn", async () => {
      const next = await scene.make("");
      const ran = await underLoad(next, async () => {
        const { ended } = start();
        await bakesFor(3);
        const aborted = await scene.baton("abort", scene.environment, "--reason", "not today");
        assert.equal(aborted.exitCode, 0, aborted.text);
        return ended;
      });
      await isWithdrawn("aborted", next, ran, /aborted by ann@example\.com: not today/);
    });

    it("a run that is killed in its bake is carried on by the same command", async () => {
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

    it("a bake waits for a Prometheus that goes away, and passes once it is back", async () => {
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
  ...["answered by the release", "from its first failure to its last answer"],
];

/** What happened, as a row of a table for docs. */
function formatRow(strategy: string, release: string, next: Trial, ran: Ran, load: LoadResult) {
  const outcome = ran.exitCode === 0 ? "deployed" : "withdrawn";
  const met = load.byVersion[next.version];
  const span = met?.firstFailure === undefined ? undefined : (met.last ?? 0) - met.firstFailure;
  const others = load.failures - (met?.failures ?? 0);
  const back = span === undefined ? "–" : `${(span / 1000).toFixed(1)} s`;
  return [strategy, release, outcome, load.requests, others, met?.requests ?? 0, back];
}

function formatTable(rows: readonly (readonly unknown[])[]): string {
  const lines = [HEAD, HEAD.map(() => "---"), ...rows];
  return lines.map((row) => `| ${row.join(" | ")} |`).join("\n");
}
