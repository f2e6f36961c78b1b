import { execa } from "execa";
import { spawn } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { BIN } from "../../sandbox/folder";
import { pushImage } from "../../sandbox/images";

/*
 * Stands in for `docker`, where there is no daemon: what the pipelines build is the sample app with
 * the labels they ask for, and what they start is that program. It knows the commands that they
 * use, and fails at any other. BATON_DOCKER is the file it remembers images in.
 */

const FILE = process.env["BATON_DOCKER"] ?? "";
const PREFIX = "org.opencontainers.image.";
const REVISION = `${PREFIX}revision`;
/** The image's id, once it was pushed: what it is remembered by beside its labels. */
const ID = "id";
interface Memory {
  readonly images: Record<string, Record<string, string>>;
  pid?: number;
}

const optionOf = (args: readonly string[], name: string) => args[args.indexOf(name) + 1] ?? "";

async function main(args: readonly string[]): Promise<void> {
  const memory = JSON.parse(await readFile(FILE, "utf8").catch(() => '{"images":{}}')) as Memory;
  const imageOf = (name: string) => {
    const labels = memory.images[name];
    if (labels === undefined) throw new Error(`No such image: ${name}`);
    return labels;
  };
  const [command, second = "", third = ""] = args;
  if (command === "build") {
    const given = args.flatMap((word, index) =>
      word === "--build-arg" ? [(args[index + 1] ?? "").split("=")] : [],
    );
    memory.images[optionOf(args, "--tag")] = Object.fromEntries(
      given.map(([name = "", ...value]) => [`${PREFIX}${name.toLowerCase()}`, value.join("=")]),
    );
  } else if (command === "image" && second === "inspect") {
    const label = /"([^"]+)"/.exec(optionOf(args, "--format"))?.[1] ?? "";
    console.log(imageOf(args.at(-1) ?? "")[label] ?? "<no value>");
  } else if (command === "tag") {
    memory.images[third] = imageOf(second);
  } else if (command === "push") {
    const name = args.at(-1) ?? "";
    const colon = name.lastIndexOf(":");
    await pushImage(
      name.slice(colon + 1),
      { repository: name.slice(0, colon), plainHttp: true },
      {
        files: { "bin/podinfo": join(BIN, "podinfo"), "bin/podcli": join(BIN, "podcli") },
        entrypoint: ["/bin/podinfo"],
        labels: Object.fromEntries(Object.entries(imageOf(name)).filter(([label]) => label !== ID)),
      },
    );
    const crane = ["manifest", "--insecure", name];
    const { stdout } = await execa(join(BIN, "crane"), crane);
    imageOf(name)[ID] = (JSON.parse(stdout) as { config: { digest: string } }).config.digest;
    for (const other of Object.keys(memory.images)) {
      if (imageOf(other)[REVISION] === imageOf(name)[REVISION])
        memory.images[other] = imageOf(name);
    }
  } else if (command === "pull") {
    imageOf(args.at(-1) ?? "");
  } else if (command === "compose" && args.includes("up")) {
    imageOf(process.env["IMAGE"] ?? "");
    const options = { detached: true, stdio: "ignore" } as const;
    const program = spawn(join(BIN, "podinfo"), ["--port=8080", "--level=error"], options);
    memory.pid = program.pid ?? 0;
    program.unref();
  } else if (command === "compose" && args.includes("down")) {
    if (memory.pid !== undefined) process.kill(memory.pid);
    delete memory.pid;
  } else {
    throw new Error(`docker's stand-in does not know: ${args.join(" ")}`);
  }
  await writeFile(FILE, JSON.stringify(memory));
}

main(process.argv.slice(2)).catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
});
