import { envSchema } from "env-schema";
import Type, { type Static } from "typebox";

const Config = Type.Object({
  /** Where PostgreSQL is, `postgres://user:password@host:port/database`. */
  DATABASE_URL: Type.String({ pattern: "^postgres(ql)?://" }),
  /** Where the payments service is. */
  PAYMENTS_URL: Type.String({ pattern: "^https?://" }),
  PORT: Type.Integer({ default: 8080, minimum: 0, maximum: 65535 }),
  LOG_LEVEL: Type.Enum(["fatal", "error", "warn", "info", "debug", "trace", "silent"], {
    default: "info",
  }),
  /** How long requests are still taken after SIGTERM, while clients are sent elsewhere. */
  DRAIN_SECONDS: Type.Integer({ default: 2, minimum: 0 }),
  /** Which release this is; the image sets both. */
  APP_VERSION: Type.String({ default: "0.0.0" }),
  APP_REVISION: Type.String({ default: "unknown" }),
  /** See faults.ts. */
  FAULT: Type.String({ default: "" }),
});

export type Config = Static<typeof Config>;

/**
 * Reads the settings from environment variables.
 * @throws Error that names every variable that is missing or wrong, and no value.
 */
export function readConfig(variables: NodeJS.ProcessEnv): Config {
  return envSchema<Config>({ schema: Config, data: variables, env: false });
}

/** Only where the database is, for the programs that need nothing else. */
export function readDatabaseUrl(variables: NodeJS.ProcessEnv): string {
  const schema = Type.Pick(Config, ["DATABASE_URL"]);
  return envSchema<Static<typeof schema>>({ schema, data: variables, env: false }).DATABASE_URL;
}
