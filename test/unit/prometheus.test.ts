import * as assert from "node:assert/strict";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { QueryError, queryNumber } from "../../provider/prometheus";

describe("a query to Prometheus", () => {
  let server: Server;
  let address: string;
  let answer: (request: IncomingMessage, response: ServerResponse) => void;
  let asked: URLSearchParams[] = [];
  let tokens: (string | undefined)[] = [];

  before(async () => {
    server = createServer((request, response) => {
      void text(request).then((body) => {
        assert.equal(request.url, "/api/v1/query");
        asked.push(new URLSearchParams(body));
        tokens.push(request.headers.authorization);
        answer(request, response);
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  beforeEach(() => {
    asked = [];
    tokens = [];
  });
  after(() => server.close());

  const says = (status: number, body: unknown) => {
    answer = (_, response) => response.writeHead(status).end(JSON.stringify(body));
  };
  const vector = (...values: string[]) => ({
    status: "success",
    data: {
      resultType: "vector",
      result: values.map((value) => ({ metric: {}, value: [1, value] })),
    },
  });

  it("gives one number", async () => {
    says(200, vector("0.25"));
    assert.equal(await queryNumber(`${address}/`, "up", new Date(1_500)), 0.25);
    assert.equal(asked[0]?.get("query"), "up");
    assert.equal(asked[0].get("time"), "1.5");
    says(200, { status: "success", data: { resultType: "scalar", result: [1, "+Inf"] } });
    assert.equal(await queryNumber(address, "1 / 0"), Infinity);
    assert.equal(asked[1]?.get("time"), null, "now is Prometheus's own");
  });

  it("gives none where there is no series, and none for what is not a number", async () => {
    says(200, vector());
    assert.equal(await queryNumber(address, "nothing"), undefined);
    says(200, vector("NaN"));
    assert.equal(await queryNumber(address, "0 / 0"), undefined);
  });

  it("blames the query for what no retry mends, and asks once", async () => {
    says(400, { status: "error", errorType: "bad_data", error: "1:4: parse error" });
    await assert.rejects(queryNumber(address, "up("), new QueryError("1:4: parse error"));
    assert.equal(asked.length, 1);
    says(200, vector("1", "2"));
    await assert.rejects(queryNumber(address, "up"), /2 series; expected one, as sum/);
  });

  it("asks again before it says that Prometheus does not answer", async () => {
    says(503, {});
    await assert.rejects(queryNumber(address, "up"), /does not answer: HTTP 503$/);
    assert.equal(asked.length, 3);
    let first = true;
    answer = (request, response) => {
      if (first) request.socket.destroy();
      else response.writeHead(200).end(JSON.stringify(vector("1")));
      first = false;
    };
    assert.equal(await queryNumber(address, "up"), 1);
    await assert.rejects(queryNumber("http://127.0.0.1:65000", "up"), (error: Error) => {
      assert.ok(!(error instanceof QueryError));
      assert.match(error.message, /^http:\/\/127\.0\.0\.1:65000 does not answer: ECONNREFUSED$/);
      return true;
    });
  });

  it("takes no other answer for Prometheus's", async () => {
    answer = (_, response) => response.writeHead(200).end("<html>Sign in</html>");
    await assert.rejects(queryNumber(address, "up"), /its answer is not Prometheus's$/);
  });

  describe("with a token in the environment", () => {
    beforeEach(() => {
      says(200, vector("1"));
      process.env["BATON_PROMETHEUS_TOKEN"] = "t0ken";
    });
    afterEach(() => {
      delete process.env["BATON_PROMETHEUS_TOKEN"];
      delete process.env["BATON_PROMETHEUS_HOST"];
    });

    it("shows the token to the host that the environment names with it", async () => {
      process.env["BATON_PROMETHEUS_HOST"] = new URL(address).host;
      await queryNumber(address, "up");
      assert.deepEqual(tokens, ["Bearer t0ken"]);
    });

    it("shows the token to no other host", async () => {
      process.env["BATON_PROMETHEUS_HOST"] = "prometheus.example.com";
      await queryNumber(address, "up");
      assert.deepEqual(tokens, [undefined]);
    });

    it("asks for the host where the environment names none", async () => {
      await assert.rejects(queryNumber(address, "up"), (error: Error) => {
        assert.ok(error instanceof QueryError);
        assert.match(error.message, /^environment: BATON_PROMETHEUS_HOST is missing; expected/);
        return true;
      });
      assert.deepEqual(tokens, []);
    });
  });
});
