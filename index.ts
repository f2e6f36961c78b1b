import { readConfig } from "./config";
import { preflight } from "./preflight";

export = async () => {
  const config = readConfig();
  // The registry and the cluster answer while the SDKs are loaded.
  const [release, { createInfra }] = await Promise.all([preflight(config), import("./infra")]);
  return createInfra(config, release);
};
