import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** Starts one of the service's programs, as `npm run dev` does but once. */
export function start(program: string, args: string[], variables: Record<string, string>) {
  const child = spawn(process.execPath, ["--import", "tsx", `src/${program}.ts`, ...args], {
    cwd: ROOT,
    env: { PATH: process.env["PATH"], ...variables },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => (output += text));
  }
  const ended = once(child, "close").then(([code]) => ({ code: code as number | null, output }));
  return {
    ended,
    kill: (signal: NodeJS.Signals) => child.kill(signal),
    /** Where it listens, once it does. */
    listening: async () => {
      for (;;) {
        const address = /Server listening at (http:\/\/127\.0\.0\.1:\d+)/.exec(output)?.[1];
        if (address !== undefined) return address;
        if (child.exitCode !== null) throw new Error(`${program} ended: ${output}`);
        await once(child.stdout, "data");
      }
    },
  };
}
