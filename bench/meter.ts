import { connect, createServer, type AddressInfo, type Socket } from "node:net";

/** A TCP proxy that counts what passes. */
export interface Meter {
  /** `host:port` to call in place of the server's. */
  readonly address: string;
  /** Bytes that have passed so far, both directions together. */
  readonly bytes: () => number;
  /** Ends every connection. */
  readonly close: () => Promise<void>;
}

/** Opens a meter in front of `server`, `host:port`, on a free port of this machine. */
export async function openMeter(server: string): Promise<Meter> {
  const { hostname, port } = new URL(`tcp://${server}`);
  let bytes = 0;
  const sockets = new Set<Socket>();
  const track = (socket: Socket, peer: Socket) => {
    sockets.add(socket);
    socket.on("data", (chunk: Buffer) => (bytes += chunk.length));
    // A client that hangs up is no failure; what it misses, it reports itself.
    socket.on("error", () => peer.destroy());
    socket.on("close", () => {
      sockets.delete(socket);
      peer.destroy();
    });
    socket.pipe(peer);
  };
  const proxy = createServer((client) => {
    const upstream = connect(Number(port), hostname);
    track(client, upstream);
    track(upstream, client);
  });
  await new Promise<void>((resolve, reject) => {
    proxy.once("error", reject);
    proxy.listen(0, "127.0.0.1", resolve);
  });
  return {
    address: `127.0.0.1:${(proxy.address() as AddressInfo).port}`,
    bytes: () => bytes,
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => proxy.close(resolve));
    },
  };
}
