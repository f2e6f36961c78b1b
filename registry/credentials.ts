import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { z } from "zod";
import { RegistryError } from "./errors";

export interface Credentials {
  readonly username: string;
  readonly password: string;
}

/** The parts of Docker's config.json that say how to log in. */
const DockerConfig = z.object({
  auths: z.record(z.string(), z.object({ auth: z.string().optional() })).optional(),
  credHelpers: z.record(z.string(), z.string()).optional(),
  credsStore: z.string().optional(),
});

/**
 * Finds the credentials for a registry where `docker login`, `skopeo login` and CI systems leave
 * them: `BATON_REGISTRY_USERNAME` and `BATON_REGISTRY_PASSWORD` for the registry that
 * `BATON_REGISTRY_HOST` names, else Docker's config.json (`$DOCKER_CONFIG`, default `~/.docker`)
 * with its credential helpers (https://github.com/docker/docker-credential-helpers#development).
 * A stack file chooses the registry, so credentials without a host are given to none.
 *
 * @param host `host[:port]` of the registry
 * @returns `undefined` when none are configured: the registry is then asked anonymously.
 * @throws RegistryError when `BATON_REGISTRY_HOST` is missing, or Docker's configuration is broken.
 */
export async function findCredentials(host: string): Promise<Credentials | undefined> {
  const username = process.env["BATON_REGISTRY_USERNAME"];
  const password = process.env["BATON_REGISTRY_PASSWORD"];
  if (username && password) {
    const own = process.env["BATON_REGISTRY_HOST"];
    if (!own) {
      throw new RegistryError(
        "environment: BATON_REGISTRY_HOST is missing; expected the registry that " +
          `BATON_REGISTRY_USERNAME is for. Set it, as in BATON_REGISTRY_HOST=${host}.`,
      );
    }
    if (own === host) return { username, password };
  }

  const path = join(process.env["DOCKER_CONFIG"] ?? join(homedir(), ".docker"), "config.json");
  const config = await readDockerConfig(path);
  if (config === undefined) return undefined;

  const helper = config.credHelpers?.[host];
  if (helper !== undefined) return askHelper(helper, host);
  const encoded = config.auths?.[host]?.auth ?? config.auths?.[`https://${host}`]?.auth;
  if (encoded !== undefined) {
    const [user = "", ...rest] = Buffer.from(encoded, "base64").toString("utf8").split(":");
    return { username: user, password: rest.join(":") };
  }
  return config.credsStore === undefined ? undefined : askHelper(config.credsStore, host);
}

async function readDockerConfig(path: string): Promise<z.infer<typeof DockerConfig> | undefined> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new RegistryError(`${path}: cannot be read: ${(error as Error).message}. Correct it.`);
  }
  try {
    return DockerConfig.parse(JSON.parse(text));
  } catch {
    // The parser's own message would quote the file, which holds passwords.
    throw new RegistryError(`${path}: is not a Docker configuration; expected JSON. Correct it.`);
  }
}

async function askHelper(helper: string, host: string): Promise<Credentials | undefined> {
  const command = `docker-credential-${helper}`;
  const call = promisify(execFile)(command, ["get"], { timeout: 30_000 });
  call.child.stdin?.end(host);
  try {
    const { stdout } = await call;
    const found = z.object({ Username: z.string(), Secret: z.string() }).parse(JSON.parse(stdout));
    return { username: found.Username, password: found.Secret };
  } catch (error) {
    const { stdout = "" } = error as { stdout?: string };
    if (stdout.includes("credentials not found")) return undefined;
    throw new RegistryError(
      `${host}: ${command} gave no credentials; expected a username and a secret. ` +
        `Run \`${command} get\` by hand, or log in again.`,
    );
  }
}
