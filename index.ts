import { readConfig } from "./config";
import { preflight } from "./preflight";

export = async () => {
  // The SDK takes a stack trace with every resource; mapping each frame back through ts-node's
  // source maps would cost a twentieth of every preview.
  delete (Error as { prepareStackTrace?: unknown }).prepareStackTrace;

  const config = readConfig();
  // The registry and the cluster answer while the SDKs are loaded.
  const [{ release, database, breakGlass }, { createInfra }] = await Promise.all([
    preflight(config),
    import("./infra"),
  ]);
  const outputs = await createInfra(config, release, database);
  return breakGlass === undefined ? outputs : { ...outputs, breakGlass };
};
