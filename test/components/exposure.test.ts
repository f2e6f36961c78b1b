import * as assert from "node:assert/strict";
import { STACK } from "../../components/internal/labels";
import { ProgramHarness, type Registered } from "../support/program";
import { release } from "../support/releases";

describe("Exposure", () => {
  let harness: ProgramHarness;
  before(async () => (harness = await ProgramHarness.start()));
  after(() => harness.stop());

  const ranges = ["203.0.113.0/24", "198.51.100.7/32"];

  async function declare(
    entrances: object,
    exposure: object,
    secrets: Record<string, string> = {},
    more: Record<string, string> = {},
  ): Promise<(kind: string) => Registered | undefined> {
    const config = { entrances, workloads: { web: { exposure } }, ...more };
    const run = await harness.run(release(harness, "qa", { config, secrets }));
    return (kind) =>
      run.resources.find(
        ({ type, parent }) => type.endsWith(`:${kind}`) && parent.includes("Exposure"),
      );
  }

  /** The annotations beside the stack's, which every object has. */
  const annotations = (resource: Registered | undefined) => {
    const metadata = resource?.inputs["metadata"] as { annotations: Record<string, string> };
    const { [STACK]: stack, ...others } = metadata.annotations;
    assert.equal(stack, "baton/qa");
    return others;
  };

  it("is an Ingress of AWS's controller, inside or outside", async () => {
    const find = await declare({}, { sourceRanges: ranges });
    assert.deepEqual(annotations(find("Ingress")), {
      "alb.ingress.kubernetes.io/scheme": "internal",
      "alb.ingress.kubernetes.io/target-type": "ip",
      "alb.ingress.kubernetes.io/inbound-cidrs": ranges.join(","),
    });
    const open = await declare({}, { scope: "public" });
    assert.equal(
      annotations(open("Ingress"))["alb.ingress.kubernetes.io/scheme"],
      "internet-facing",
    );
  });

  it("is an Ingress of nginx, with an authenticating proxy's annotations", async () => {
    const auth = { "nginx.ingress.kubernetes.io/auth-url": "https://sso.example.com/auth" };
    const find = await declare(
      { controller: "nginx" },
      { sourceRanges: ranges, annotations: auth },
    );
    assert.deepEqual(annotations(find("Ingress")), {
      "nginx.ingress.kubernetes.io/whitelist-source-range": ranges.join(","),
      ...auth,
    });
  });

  it("is an Ingress of Traefik, with its allow list", async () => {
    const find = await declare({ controller: "traefik" }, { sourceRanges: ranges });
    assert.deepEqual(annotations(find("Ingress")), {
      "traefik.ingress.kubernetes.io/router.middlewares": "qa-web-source-ranges@kubernetescrd",
    });
    assert.deepEqual(find("Middleware")?.inputs["spec"], {
      ipAllowList: { sourceRange: ranges },
    });
  });

  describe("on a Gateway", () => {
    const gateway = {
      kind: "HTTPRoute",
      controller: "envoyGateway",
      internal: { name: "inside", namespace: "gateways", cidr: null },
    };

    it("is an HTTPRoute of the scope's Gateway", async () => {
      const find = await declare(gateway, { tls: null });
      assert.deepEqual(find("HTTPRoute")?.inputs["spec"], {
        parentRefs: [{ name: "inside", namespace: "gateways" }],
        hostnames: ["podinfo.qa.example.com"],
        rules: [
          {
            matches: [{ path: { type: "PathPrefix", value: "/" } }],
            backendRefs: [{ name: "web", port: 80 }],
          },
        ],
      });
      assert.equal(find("SecurityPolicy"), undefined);
      assert.deepEqual(annotations(find("HTTPRoute")), {});
    });

    it("says source ranges in Envoy Gateway's words", async () => {
      const find = await declare(gateway, { tls: null, sourceRanges: ranges });
      assert.deepEqual(find("SecurityPolicy")?.inputs["spec"], {
        targetRefs: [{ group: "gateway.networking.k8s.io", kind: "HTTPRoute", name: "web" }],
        authorization: {
          defaultAction: "Deny",
          rules: [{ action: "Allow", principal: { clientCIDRs: ranges } }],
        },
      });
    });

    it("says source ranges in Traefik's words", async () => {
      const traefik = { ...gateway, controller: "traefik" };
      const find = await declare(traefik, { tls: null, sourceRanges: ranges });
      const { rules } = find("HTTPRoute")?.inputs["spec"] as { rules: { filters: unknown }[] };
      assert.deepEqual(rules[0]?.filters, [
        {
          type: "ExtensionRef",
          extensionRef: { group: "traefik.io", kind: "Middleware", name: "web-source-ranges" },
        },
      ]);
    });
  });

  describe("with a certificate", () => {
    const tlsOf = (ingress: Registered | undefined) =>
      (ingress?.inputs["spec"] as { tls?: { hosts: string[]; secretName?: string }[] }).tls;

    it("that the controller finds", async () => {
      const find = await declare({}, { tls: { source: "controller" } });
      assert.deepEqual(tlsOf(find("Ingress")), [{ hosts: ["podinfo.qa.example.com"] }]);
    });

    it("that somebody keeps in the namespace", async () => {
      const find = await declare({}, { tls: { source: "existing", secret: "wildcard" } });
      assert.equal(tlsOf(find("Ingress"))?.[0]?.secretName, "wildcard");
    });

    it("that cert-manager obtains", async () => {
      const find = await declare(
        { controller: "nginx" },
        { tls: { source: "certManager", issuer: "letsencrypt" } },
      );
      assert.equal(annotations(find("Ingress"))["cert-manager.io/cluster-issuer"], "letsencrypt");
      assert.equal(tlsOf(find("Ingress"))?.[0]?.secretName, "web-tls");
    });

    it("from encrypted config", async () => {
      const find = await declare(
        {},
        { tls: { source: "config" } },
        { tlsKey: "private" },
        { tlsCertificate: "public" },
      );
      const secret = find("Secret");
      assert.ok(secret);
      assert.equal(secret.inputs["type"], "kubernetes.io/tls");
      assert.deepEqual(secret.inputs["stringData"], { "tls.crt": "public", "tls.key": "private" });
      assert.deepEqual(secret.secrets, ["stringData"]);
      assert.match(tlsOf(find("Ingress"))?.[0]?.secretName ?? "", /^web-tls-/);
    });
  });

  it("waits for the rollout it leads to", async () => {
    const find = await declare({}, {});
    assert.ok(find("Ingress")?.dependsOn.includes("web-rollout"));
  });
});
