import { AppsV1Api, CoreV1Api, CustomObjectsApi, type KubeConfig } from "@kubernetes/client-node";
import { isDeepStrictEqual } from "node:util";
import { absent, answerOf, labelSelectorOf, MERGE, patiently } from "./cluster";
import { namesOf, undoAll } from "./undo";

type Selector = Readonly<Record<string, string>>;

/** A Service that leads to one release at a time, and where it led before. */
export interface Switch {
  readonly service: string;
  readonly to: Selector;
  readonly from?: Selector;
  /** The HTTPRoute that leads to the Service, where its weights divide the requests. */
  readonly route?: string;
}

/** A Service that leads to two releases for a time. */
export interface SharedSwitch extends Switch {
  /** The new release's Deployment, and the Service that leads to it alone. */
  readonly canary: string;
  /** What selects both releases. */
  readonly both: Selector;
}

/** A backend of an HTTPRoute (https://gateway-api.sigs.k8s.io/reference/spec/#httpbackendref). */
interface Backend {
  readonly name: string;
  readonly weight?: number;
}
interface Rule {
  readonly backendRefs?: readonly Backend[];
}
interface Route {
  readonly metadata?: { readonly resourceVersion?: string };
  readonly spec?: { readonly rules?: readonly Rule[] };
}

const ROUTES = { group: "gateway.networking.k8s.io", version: "v1", plural: "httproutes" };

/**
 * Where the requests go. Each write is refused by the cluster when the object has changed since it
 * was read.
 */
export class Traffic {
  constructor(
    private readonly kubeconfig: KubeConfig,
    private readonly namespace: string,
    /** Asked between reading and writing: throws where this run may not write any more. */
    private readonly mayWrite: () => Promise<void> = () => Promise.resolve(),
  ) {}

  /** Whether all Services, and the routes to them, lead to the release alone. */
  async isGiven(switches: readonly Switch[]): Promise<boolean> {
    const given = switches.map(async ({ service, to, route }) => {
      if (!isEqual((await this.readService(service)).spec?.selector, to)) return false;
      return route === undefined || (await this.isWhole(route, service));
    });
    return (await Promise.all(given)).every((isGiven) => isGiven);
  }

  /** Which Services, or their routes, lead to two releases; none where there is no Service yet. */
  async shared(switches: readonly SharedSwitch[]): Promise<SharedSwitch[]> {
    const found = switches.map(async (one) => {
      const { service, both, route } = one;
      const present = await this.readService(service).catch(absent);
      if (isEqual(present?.spec?.selector, both)) return [one];
      return route === undefined || (await this.isWhole(route, service)) ? [] : [one];
    });
    return (await Promise.all(found)).flat();
  }

  /** Leads the Services to the release alone, where they do not yet. */
  async give(switches: readonly Switch[]): Promise<void> {
    for (const { service, to, route } of switches) {
      await this.lead(service, to);
      if (route !== undefined) await this.weigh(route, service, { [service]: 1 });
    }
  }

  /** Gives the release its share, in percent: by the route's weights, or by being selected too. */
  async share(switches: readonly SharedSwitch[], weight: number): Promise<void> {
    for (const { service, from, both, canary, route } of switches) {
      if (route === undefined) {
        await this.lead(service, both);
        continue;
      }
      // Other callers use the Service: they meet the stable release until the last step.
      if (from !== undefined) await this.lead(service, from);
      await this.weigh(route, service, { [service]: 100 - weight, [canary]: weight });
    }
  }

  /**
   * Gives the former releases all traffic that the release has, or shares.
   * @returns what was done, or why not: a canary may have taken the former one's pods.
   */
  async giveBack(
    switches: readonly (Switch & Partial<Pick<SharedSwitch, "both">>)[],
  ): Promise<string[]> {
    const said: string[] = [];
    for (const { service, to, from, both = to, route } of switches) {
      if (from === undefined) continue;
      if (!(await this.hasPods(from))) {
        said.push(`${service} stays where it is: ${Object.values(from).join(", ")} has no pods`);
      } else if (await this.lead(service, from, [to, both])) {
        if (route !== undefined) await this.weigh(route, service, { [service]: 1 });
        said.push(`${service} leads to the former release again`);
      } else {
        said.push(`${service} stays where it is: it leads to another release by now`);
      }
    }
    return said;
  }

  /**
   * Whether anybody is there to take traffic; Deployments have the labels of their pods. Pods that
   * are not ready for a moment come back by themselves.
   */
  private async hasPods(selector: Selector): Promise<boolean> {
    const { items } = await this.kubeconfig.makeApiClient(AppsV1Api).listNamespacedDeployment({
      namespace: this.namespace,
      labelSelector: labelSelectorOf(selector),
    });
    return items.some(({ spec }) => spec?.replicas !== 0);
  }

  /**
   * Takes the traffic back, as fast as can be.
   * @param inPlace the Deployments, separated by commas, whose former release comes back instead
   * @param irreversible why it may not go back
   * @returns what was done, or why not.
   */
  async takeBack(
    switches: readonly Switch[],
    inPlace: string | undefined,
    irreversible?: string,
  ): Promise<string[]> {
    const takeOne = async (one: Switch): Promise<string[]> => {
      const { service, from } = one;
      if (from === undefined) return [];
      if (irreversible !== undefined) return [`${service} stays where it is: ${irreversible}`];
      try {
        return await patiently(() => this.giveBack([one]));
      } catch (error) {
        return [`${service} could not be led back to the former release: ${answerOf(error)}`];
      }
    };
    const undone = undoAll(this.kubeconfig, this.namespace, namesOf(inPlace), irreversible);
    return (await Promise.all([...switches.map(takeOne), undone])).flat();
  }

  private async readService(name: string) {
    const core = this.kubeconfig.makeApiClient(CoreV1Api);
    return core.readNamespacedService({ namespace: this.namespace, name });
  }

  /**
   * @param only from whom the Service may be taken; from anybody unless given
   * @returns whether it leads there.
   */
  private async lead(name: string, to: Selector, only?: readonly Selector[]): Promise<boolean> {
    const { metadata, spec } = await this.readService(name);
    const present = spec?.selector ?? {};
    if (isEqual(present, to)) return true;
    if (only !== undefined && !only.some((one) => isEqual(present, one))) return false;
    await this.mayWrite();
    const gone = Object.fromEntries(Object.keys(present).map((key) => [key, null]));
    const { resourceVersion } = metadata ?? {};
    const body = { metadata: { resourceVersion }, spec: { selector: { ...gone, ...to } } };
    const { namespace } = this;
    await this.kubeconfig
      .makeApiClient(CoreV1Api)
      .patchNamespacedService({ namespace, name, body }, MERGE);
    return true;
  }

  /** Nothing where there is no route: nobody comes by it. */
  private async readRoute(name: string): Promise<Route> {
    const api = this.kubeconfig.makeApiClient(CustomObjectsApi);
    const which = { ...ROUTES, namespace: this.namespace, name };
    const found: unknown = await api.getNamespacedCustomObject(which).catch(absent);
    return found ?? {};
  }

  /** Whether a route leads to no other Service beside this one. */
  private async isWhole(route: string, service: string): Promise<boolean> {
    return weighed(await this.readRoute(route), service, { [service]: 1 }) === undefined;
  }

  /** Divides what a route leads to a Service. */
  private async weigh(
    name: string,
    service: string,
    weights: Readonly<Record<string, number>>,
  ): Promise<void> {
    const route = await this.readRoute(name);
    const rules = weighed(route, service, weights);
    if (rules === undefined) return;
    await this.mayWrite();
    const { resourceVersion } = route.metadata ?? {};
    const body = { metadata: { resourceVersion }, spec: { rules } };
    const which = { ...ROUTES, namespace: this.namespace, name };
    await this.kubeconfig
      .makeApiClient(CustomObjectsApi)
      .patchNamespacedCustomObject({ ...which, body }, MERGE);
  }
}

/** What gives the former release all traffic, where there is one. */
export function backOf({ service, from, route }: Switch): Switch[] {
  return from === undefined ? [] : [{ service, to: from, ...(route && { route }) }];
}

/** A route's rules with other weights; nothing where these are the ones that it has. */
function weighed(
  route: Route,
  service: string,
  weights: Readonly<Record<string, number>>,
): Rule[] | undefined {
  const present = route.spec?.rules ?? [];
  const rules = present.map((rule) => {
    const own = rule.backendRefs?.find((backend) => backend.name === service);
    if (own === undefined) return rule;
    const divided = Object.entries(weights).map(([to, weight]) => ({ ...own, name: to, weight }));
    return { ...rule, backendRefs: divided };
  });
  const weightsOf = (all: readonly Rule[]) =>
    all.map(({ backendRefs = [] }) => backendRefs.map((one) => [one.name, one.weight ?? 1]));
  return isDeepStrictEqual(weightsOf(rules), weightsOf(present)) ? undefined : rules;
}

function isEqual(present: Selector | undefined, wanted: Selector): boolean {
  return isDeepStrictEqual({ ...present }, { ...wanted });
}
