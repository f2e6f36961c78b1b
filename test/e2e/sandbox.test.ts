import { execa } from "execa";
import * as assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { until } from "../../sandbox/cluster";
import { CGROUP, NETWORK, NODE_PID, SANDBOX } from "../../sandbox/folder";
import { onSandbox, PATIENCE, sandboxProcess } from "./scene";

describe("the sandbox", () => {
  before(async function () {
    if (!onSandbox) this.skip();
    await sandboxProcess("up");
  });

  const pid = () => readFile(NODE_PID, "utf8").catch(() => undefined);

  it("is left as it is by a second `up`", async () => {
    const running = await pid();
    assert.ok(running);
    await sandboxProcess("up");
    assert.equal(await pid(), running);
  });

  it("leaves nothing behind when it goes down", async () => {
    await sandboxProcess("down");
    const { stdout: namespaces } = await execa("ip", ["netns", "list"]);
    assert.ok(!namespaces.includes(NETWORK.namespace), "network namespace");
    const { stdout: links } = await execa("ip", ["link"]);
    assert.ok(!links.includes(NETWORK.outsideInterface), "network interface");
    const { stdout: routes } = await execa("ip", ["route"]);
    assert.ok(!routes.includes(NETWORK.services), "route");
    const { stdout: rules } = await execa("iptables-save");
    assert.doesNotMatch(rules, /KUBE|CNI/, "iptables rules");
    assert.ok(!(await readFile("/proc/mounts", "utf8")).includes(SANDBOX), "mounts");
    const { stdout: groups } = await execa("find", ["/sys/fs/cgroup", "-name", CGROUP]);
    assert.equal(groups, "", "control groups");
    const shared = await execa("find", ["/dev/shm", "-user", "nobody"]);
    assert.equal(shared.stdout, "", "files of shared memory");
    const segments = await execa("ipcs", ["--shmems"]);
    assert.doesNotMatch(segments.stdout, /nobody/, "segments of shared memory");
    for (const process of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
      const command = await readFile(`/proc/${process}/cmdline`, "utf8").catch(() => "");
      assert.ok(!command.includes(SANDBOX), `process ${command}`);
    }
  });

  it("is mended by `up` after a killed `up`", async () => {
    const killed = sandboxProcess("up");
    await until("the node's first process", async () => (await pid()) !== undefined, PATIENCE);
    killed.kill("SIGKILL");
    await assert.rejects(killed);
    await sandboxProcess("up");
    await sandboxProcess("status");
  });
});
