import * as pulumi from "@pulumi/pulumi";
import { Refusal } from "../../config";
import type { ObjectReference } from "../../provider/ownership";
import { formatProblem } from "../../release/problem";

const JOB = "kubernetes:batch/v1:Job";

/**
 * Hooks for all objects in the cluster. Before an update, an object that this stack adopts is released
 * from its former managers, so that it holds what is declared, and nothing more. After the failure of a
 * Job, the error shows why its pods have failed.
 *
 * @param context the kubeconfig's context; its current one unless given
 * @throws Refusal where the engine has no hooks, or a former language host keeps them from it
 */
export async function objectHooks(
  environment: string,
  context: string | undefined,
): Promise<pulumi.ResourceHookBinding> {
  const release = async ({ type, newInputs, oldOutputs }: pulumi.ResourceHookArgs) => {
    const manager: unknown = oldOutputs?.["__fieldManager"];
    if (!type.startsWith("kubernetes:") || typeof manager !== "string") return;
    const [{ kubeconfigOf }, ownership] = await Promise.all([
      import("../../provider/cluster"),
      import("../../provider/ownership"),
    ]);
    await ownership.release(kubeconfigOf(context), newInputs as ObjectReference, manager);
  };
  const explain = async ({ type, urn, newInputs, errors }: pulumi.ErrorHookArgs) => {
    const { namespace, name } = (newInputs as ObjectReference | undefined)?.metadata ?? {};
    const isJob = type === JOB && namespace !== undefined && name !== undefined;
    if (!isJob || pulumi.runtime.isDryRun()) return false;
    const [{ kubeconfigOf }, { explainJob }] = await Promise.all([
      import("../../provider/cluster"),
      import("../../provider/job"),
    ]);
    const lines = await explainJob(kubeconfigOf(context), namespace, name, errors.join("\n"));
    if (lines.length > 0) {
      const resource = { urn: { promise: () => Promise.resolve(urn) } };
      await pulumi.log.error(lines.join("\n"), resource as unknown as pulumi.Resource);
    }
    // The Job is not tried again by this run.
    return false;
  };
  const beforeUpdate = new pulumi.ResourceHook("release-fields", release);
  const onError = new pulumi.ErrorHook("explain-job", explain);
  await checkRegistered(environment, [beforeUpdate, onError]);
  return { beforeUpdate: [beforeUpdate], onError: [onError] };
}

/** Waits for the engine's answers: a hook that it does not take would fail each of its resources. */
async function checkRegistered(environment: string, hooks: readonly object[]): Promise<void> {
  const answers = await Promise.allSettled(
    hooks.map((hook) => (hook as { __registered: Promise<unknown> }).__registered),
  );
  for (const answer of answers) {
    if (answer.status === "fulfilled") continue;
    const { message } = answer.reason as Error;
    if (!/^12 UNIMPLEMENTED|does not support/.test(message)) throw answer.reason;
    throw new Refusal(
      formatProblem({
        where: environment,
        property: "the engine",
        value: `without resource hooks (${message})`,
        expected: "Pulumi 3.218.0 or later, with its own Node.js language host",
        fix: "Update Pulumi, and remove any other pulumi-language-nodejs from PATH",
      }),
    );
  }
}
