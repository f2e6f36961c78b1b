import type { KubernetesObject } from "@kubernetes/client-node";
import type { Project } from "../sandbox/engine";
import type { RegistryLocation } from "../registry/registry";
import type { RolloutInputs } from "../provider/rollout";

/** What an environment consists of, in an order that respects who needs whom. */
export type Step =
  | { readonly kind: "object"; readonly object: KubernetesObject }
  | { readonly kind: "rollout"; readonly rollout: Pick<RolloutInputs, "namespace" | "deployment"> }
  | {
      readonly kind: "tag";
      readonly tag: RegistryLocation & { readonly digest: string; readonly tag: string };
    };

interface State {
  readonly deployment: {
    readonly resources?: readonly { readonly type: string; readonly inputs?: unknown }[];
  };
}

/** How Pulumi's states mark a secret; its value is JSON in `plaintext`. */
const SECRET = ["4dabf18193072939515e22adb298388d", "1b47061264138c4ac30d75fd1eb44270"] as const;

/**
 * Reads from a stack's state what its last `up` made. The state lists nothing before what it
 * depends on. Secrets are plain in the result: it must not be written anywhere.
 */
export async function readSteps(project: Project, stack: string): Promise<Step[]> {
  const { stdout } = await project.pulumi("stack", "export", "--show-secrets", "--stack", stack);
  const { resources = [] } = (JSON.parse(stdout) as State).deployment;
  return resources.flatMap(({ type, inputs }): Step[] => {
    const plain = reveal(inputs);
    if (type.startsWith("kubernetes:")) {
      return [{ kind: "object", object: plain as KubernetesObject }];
    }
    if (type === "promotion:index:Rollout") {
      return [{ kind: "rollout", rollout: plain as RolloutInputs }];
    }
    if (type === "promotion:index:EarnedTag") {
      return [{ kind: "tag", tag: plain as RegistryLocation & { digest: string; tag: string } }];
    }
    return [];
  });
}

/** Puts the values of secrets in their places. */
function reveal(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(reveal);
  if (typeof value !== "object" || value === null) return value;
  const tree = value as Readonly<Record<string, unknown>>;
  if (tree[SECRET[0]] === SECRET[1]) return JSON.parse(String(tree["plaintext"]));
  return Object.fromEntries(Object.entries(tree).map(([key, child]) => [key, reveal(child)]));
}
