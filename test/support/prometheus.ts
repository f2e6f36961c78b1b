import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";

/** Answers each query with one number, or with none. */
export class PrometheusServer {
  private constructor(
    private readonly server: Server,
    readonly url: string,
  ) {}

  /** @param answer what a query gives, and whether it is asked about a time that is past */
  static async start(
    answer: (query: string, isPast: boolean) => number | undefined,
  ): Promise<PrometheusServer> {
    const server = createServer((request, response) => {
      void text(request).then((body) => {
        const parameters = new URLSearchParams(body);
        const value = answer(parameters.get("query") ?? "", parameters.has("time"));
        const result = value === undefined ? [] : [{ metric: {}, value: [1, String(value)] }];
        response.end(JSON.stringify({ status: "success", data: { resultType: "vector", result } }));
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    return new PrometheusServer(server, `http://127.0.0.1:${port}`);
  }

  stop(): void {
    this.server.close();
  }
}
