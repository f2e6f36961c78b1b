import * as pulumi from "@pulumi/pulumi";
import { projectFolder } from "./approvals";
import { readConfig, Refusal } from "./config";
import { loadedFilesOf } from "./ledger/loaded-files";
import { ProgramLayout } from "./ledger/program-files";
import { StackState } from "./stack-state";
import { preflight } from "./preflight";
import { formatProblems } from "./release/problem";
import { STATE_LAYOUT } from "./release/state-layout";

export = async () => {
  // The SDK takes a stack trace with every resource; mapping each frame back through ts-node's
  // source maps would cost a twentieth of every preview.
  delete (Error as { prepareStackTrace?: unknown }).prepareStackTrace;

  const config = readConfig();
  const loaded = loadedFilesOf(
    config.environment,
    () => new ProgramLayout(projectFolder(), __dirname),
  );
  const checkLoaded = (thorough = false) => {
    const problems = loaded?.problems(undefined, thorough) ?? [];
    if (problems.length > 0) throw new Refusal(formatProblems(problems));
  };
  loaded?.watch();
  // The registry and the cluster answer while the SDKs are loaded.
  const state = new StackState(config.environment);
  const [cleared, { createInfra }] = await Promise.all([
    preflight(config, state, loaded),
    import("./infra"),
  ]);
  checkLoaded();
  const outputs = { ...(await createInfra(config, cleared, state)), layout: STATE_LAYOUT };
  // An update takes long enough for a look at all scripts; a preview does not.
  checkLoaded(!pulumi.runtime.isDryRun());
  const { breakGlass } = cleared;
  return breakGlass === undefined ? outputs : { ...outputs, breakGlass };
};
