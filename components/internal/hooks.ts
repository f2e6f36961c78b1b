import * as pulumi from "@pulumi/pulumi";
import type { ObjectReference } from "../../provider/ownership";

const JOB = "kubernetes:batch/v1:Job";

/**
 * Hooks for all objects in the cluster. Before an update, an object that this stack adopts is released
 * from its former managers, so that it holds what is declared, and nothing more. After the failure of a
 * Job, the error shows why its pods have failed.
 *
 * @param context the kubeconfig's context; its current one unless given
 */
export function objectHooks(context: string | undefined): pulumi.ResourceHookBinding {
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
  return {
    beforeUpdate: [new pulumi.ResourceHook("release-fields", release)],
    onError: [new pulumi.ErrorHook("explain-job", explain)],
  };
}
