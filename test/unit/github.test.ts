import * as assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { comment, pullRequest } from "../../pipelines/github";

interface Asked {
  readonly method: string;
  readonly url: string;
  readonly body: Record<string, string>;
}

describe("what only GitHub can do", () => {
  let server: Server;
  let folder: string;
  let file: string;
  let asked: Asked[];
  let comments: { id: number; body: string; user?: { login: string } }[];
  let open: { html_url: string }[];
  let ahead: number;
  const environment = { ...process.env };

  beforeEach(async () => {
    [asked, comments, open, ahead] = [[], [], [], 1];
    server = createServer((request, response) => {
      let text = "";
      request.on("data", (chunk: Buffer) => (text += chunk.toString()));
      request.on("end", () => {
        const { method = "", url = "" } = request;
        assert.equal(request.headers.authorization, "Bearer token");
        const body = (text === "" ? {} : JSON.parse(text)) as Asked["body"];
        asked.push({ method, url, body });
        if (method === "POST" && url.endsWith("/comments")) {
          const user = { login: "github-actions[bot]" };
          comments.push({ id: comments.length + 1, body: body["body"] ?? "", user });
        }
        if (method === "PATCH") {
          const former = comments.find(({ id }) => url.endsWith(`/issues/comments/${id}`));
          if (former !== undefined) former.body = body["body"] ?? "";
        }
        const page = Number(new URL(url, "http://github").searchParams.get("page") ?? "1");
        const answer = url.includes("/compare/")
          ? { ahead_by: ahead }
          : url.includes("/pulls?")
            ? open
            : url.includes("/comments?")
              ? comments.slice((page - 1) * 2, page * 2)
              : { html_url: "https://github.example/pull/1" };
        response.end(JSON.stringify(answer));
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    folder = mkdtempSync(join(tmpdir(), "baton-github-"));
    file = join(folder, "preview.json");
    process.env["GITHUB_API_URL"] = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    process.env["GITHUB_REPOSITORY"] = "team/orders";
    process.env["GITHUB_TOKEN"] = "token";
    process.env["PULL_REQUEST"] = "7";
  });
  afterEach(async () => {
    process.env = { ...environment };
    rmSync(folder, { recursive: true });
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });

  const card = (commits: string) => ({
    environment: "qa",
    from: {},
    to: { tag: "dev-45" },
    plan: "0123456789ab",
    requester: "nobody yet",
    operations: [],
    scan: "not known",
    notes: commits,
    routine: true,
    missing: [],
  });
  const write = (environments: unknown) => writeFileSync(file, JSON.stringify({ environments }));

  it("keeps one comment up to date, whatever else was said", async () => {
    comments.push(...["one", "two", "three"].map((body, index) => ({ id: index + 1, body })));
    write([{ environment: "qa", card: card("") }]);
    await comment("qa", file);
    assert.equal(comments.length, 4);
    assert.match(
      comments[3]?.body ?? "",
      /^<!-- baton preview qa -->\n[^]*```text\nqa: nothing → dev-45/,
    );
    write([{ environment: "qa", problem: "qa: baton:quota is too small" }]);
    await comment("qa", file);
    assert.equal(comments.length, 4);
    assert.match(comments[3]?.body ?? "", /qa: baton:quota is too small/);
    assert.equal(comments[0]?.body, "one");
  });

  it("edits no comment of another author, whatever it begins with", async () => {
    const body = "<!-- baton preview qa -->\nas if it were ours";
    for (const login of ["eve", "github-actions"]) comments.push({ id: 1, body, user: { login } });
    comments.push({ id: 3, body });
    write([{ environment: "qa", card: card("") }]);
    await comment("qa", file);
    assert.ok(comments.slice(0, 3).every((one) => one.body === body));
    assert.equal(comments.length, 4);
  });

  it("lets nothing in a card end its block", async () => {
    write([{ environment: "qa", card: card("````\n<b>@everyone</b>") }]);
    await comment("qa", file);
    const [, fence = ""] = /\n(`+)text\n/.exec(comments[0]?.body ?? "") ?? [];
    assert.equal(fence, "`````");
    assert.ok(comments[0]?.body.endsWith(`\n${fence}`));
  });

  it("keeps a comment for each environment", async () => {
    for (const environment of ["prod", "prod2", "prod"]) {
      write([{ environment, card: { ...card(""), environment } }]);
      await comment(environment, file);
    }
    assert.deepEqual(
      comments.map(({ body }) => body.split("\n")[0]),
      ["<!-- baton preview prod -->", "<!-- baton preview prod2 -->"],
    );
  });

  it("says so where the preview has failed", async () => {
    for (const text of ["", "{}", '{"outcome":"refused"}']) {
      writeFileSync(file, text);
      await comment("qa", file);
      assert.match(comments[0]?.body ?? "", /qa: the preview failed; the job's log says why/);
    }
  });

  it("opens the pull request that the table wants, once", async () => {
    await pullRequest("refs/tags/v1.4.0");
    const [made] = asked.filter(({ method }) => method === "POST");
    assert.equal(made?.url, "/repos/team/orders/pulls");
    assert.deepEqual([made.body["head"], made.body["base"]], ["main", "dev"]);
    assert.match(asked[0]?.url ?? "", /state=open&head=team%3Amain&base=dev/);
    open.push({ html_url: "https://github.example/pull/1" });
    await pullRequest("refs/tags/v1.4.0");
    assert.equal(asked.filter(({ method }) => method === "POST").length, 1);
  });

  it("opens none where there is nothing to bring, or none is wanted", async () => {
    ahead = 0;
    await pullRequest("refs/tags/v1.4.0");
    await pullRequest("refs/heads/qa");
    assert.deepEqual(
      asked.map(({ method }) => method),
      ["GET", "GET"],
    );
  });

  it("says what is missing, and what GitHub answers", async () => {
    delete process.env["GITHUB_TOKEN"];
    await assert.rejects(pullRequest("refs/tags/v1.4.0"), /GITHUB_TOKEN is not set/);
  });
});
