import * as ecr from "@aws-sdk/client-ecr";
import * as assert from "node:assert/strict";
import { readEcrSettings } from "../../registry/ecr-settings";
import { RegistryError, TagConflictError } from "../../registry/errors";
import { attach } from "../../registry/attachments";
import { openRegistry } from "../../registry/registry";
import { attachReport, findScan, REPORT_TYPE } from "../../registry/scans";
import type { Scan, ScanAnswer } from "../../release/scan";
import {
  digestOf,
  EcrServer,
  locationIn,
  REGION,
  startDockerRegistry,
  type Manifest,
  type RealRegistry,
} from "../support/registries";
import { trivyReport } from "../support/trivy";

/** The two families of media types that images come in. */
const FAMILIES = {
  OCI: {
    image: "application/vnd.oci.image.manifest.v1+json",
    index: "application/vnd.oci.image.index.v1+json",
    config: "application/vnd.oci.image.config.v1+json",
    layer: "application/vnd.oci.image.layer.v1.tar",
  },
  Docker: {
    image: "application/vnd.docker.distribution.manifest.v2+json",
    index: "application/vnd.docker.distribution.manifest.list.v2+json",
    config: "application/vnd.docker.container.image.v1+json",
    layer: "application/vnd.docker.image.rootfs.diff.tar.gzip",
  },
} as const;
type Family = (typeof FAMILIES)[keyof typeof FAMILIES];

let serial = 0;
/** A tag that nobody has given yet: the registries live as long as the suite. */
const fresh = (giver: string) => `${giver}-${++serial}`;

/** Pushes an image; what it holds is new each time. */
async function pushImage(
  to: RealRegistry,
  family: Family,
  tag: string,
  labels?: Readonly<Record<string, string>>,
): Promise<Manifest> {
  const blob = async (mediaType: string, bytes: Buffer) => {
    await to.putBlob(bytes);
    return { mediaType, size: bytes.length, digest: digestOf(bytes) };
  };
  const config = { architecture: "amd64", os: "linux", config: { Labels: labels }, tag };
  const manifest = {
    schemaVersion: 2,
    mediaType: family.image,
    config: await blob(family.config, Buffer.from(JSON.stringify(config))),
    layers: [await blob(family.layer, Buffer.from(`the files of ${tag}`))],
  };
  // Spaces and an end of line, which a parser would not give back.
  const bytes = Buffer.from(`${JSON.stringify(manifest, undefined, 3)}\n`);
  await to.putManifest({ bytes, mediaType: family.image }, tag);
  return { bytes, mediaType: family.image };
}

/** Pushes an index of two platforms, as `docker buildx` does, its description of the build first. */
async function pushIndex(
  to: RealRegistry,
  family: Family,
  tag: string,
  labels?: Readonly<Record<string, string>>,
): Promise<Manifest> {
  const entries = [];
  for (const architecture of ["unknown", "amd64", "arm64"]) {
    const image = await pushImage(to, family, `${tag}-${architecture}`, labels);
    const annotations =
      architecture === "unknown"
        ? { annotations: { "vnd.docker.reference.type": "attestation-manifest" } }
        : {};
    entries.push({
      mediaType: family.image,
      size: image.bytes.length,
      digest: digestOf(image.bytes),
      platform: { architecture, os: architecture === "unknown" ? "unknown" : "linux" },
      ...annotations,
    });
  }
  const index = { schemaVersion: 2, mediaType: family.index, manifests: entries };
  const bytes = Buffer.from(JSON.stringify(index));
  await to.putManifest({ bytes, mediaType: family.index }, tag);
  return { bytes, mediaType: family.index };
}

const FORMS = Object.entries(FAMILIES).flatMap(([name, family]) => [
  { form: `one ${name} image`, family, push: pushImage },
  { form: `${name} index`, family, push: pushIndex },
]);

const environment = { ...process.env };

for (const kind of ["oci", "ecr"] as const) {
  describe(`The registry contract, ${kind}`, () => {
    let real: RealRegistry;
    let registry: ReturnType<typeof openRegistry>;

    before(async function () {
      this.timeout(600_000);
      real = kind === "ecr" ? await EcrServer.start() : await startDockerRegistry();
    });
    after(() => real.stop());
    beforeEach(() => {
      if (real instanceof EcrServer) Object.assign(process.env, real.environment);
      registry = openRegistry(real.location);
    });
    afterEach(() => {
      process.env = { ...environment };
    });

    for (const { form, family, push } of FORMS) {
      it(`resolves and tags ${form}, byte for byte`, async () => {
        const build = fresh("build");
        const pushed = await push(real, family, build);
        const digest = digestOf(pushed.bytes);
        assert.equal(await registry.resolve(build), digest);
        const earned = fresh("dev");
        await registry.tag(digest, earned);
        assert.equal(await registry.resolve(earned), digest);
        assert.deepEqual(await real.manifest(earned), pushed);
        assert.equal(await registry.resolve(build), digest);
      });

      it(`reads the labels of ${form}`, async () => {
        const labels = { "org.opencontainers.image.revision": "0123abc" };
        const { bytes } = await push(real, family, fresh("build"), labels);
        assert.deepEqual(await registry.labels(digestOf(bytes)), labels);
        const bare = await push(real, family, fresh("build"));
        assert.deepEqual(await registry.labels(digestOf(bare.bytes)), {});
      });
    }

    it("knows no tag that nobody has given, nor any in a repository that is not there", async () => {
      assert.equal(await registry.resolve("build-99999"), undefined);
      const repository = `${real.location.repository}-of-nobody`;
      assert.equal(
        await openRegistry({ ...real.location, repository }).resolve("build-1"),
        undefined,
      );
    });

    it("lists every tag", async () => {
      const names = Array.from({ length: 3 }, () => fresh("build"));
      const { bytes } = await pushImage(real, FAMILIES.OCI, fresh("build"));
      for (const name of names) await registry.tag(digestOf(bytes), name);
      const tags = await registry.tags();
      assert.deepEqual(
        names.filter((name) => !tags.includes(name)),
        [],
      );
      assert.equal(new Set(tags).size, tags.length);
      const repository = `${real.location.repository}-of-nobody`;
      assert.deepEqual(await openRegistry({ ...real.location, repository }).tags(), []);
    });

    it("takes the same tag on the same image again, also at the same time", async () => {
      const { bytes } = await pushImage(real, FAMILIES.OCI, fresh("build"));
      const digest = digestOf(bytes);
      const tag = fresh("dev");
      const others = [1, 2, 3].map(() => openRegistry(real.location).tag(digest, tag));
      await Promise.all([registry.tag(digest, tag), ...others]);
      await registry.tag(digest, tag);
      assert.equal(await registry.resolve(tag), digest);
    });

    it("refuses a tag that names another image, and leaves it where it is", async () => {
      const first = await pushImage(real, FAMILIES.OCI, fresh("build"));
      const second = await pushIndex(real, FAMILIES.OCI, fresh("build"));
      const tag = fresh("dev");
      await registry.tag(digestOf(first.bytes), tag);
      await assert.rejects(registry.tag(digestOf(second.bytes), tag), (error: Error) => {
        assert.ok(error instanceof TagConflictError);
        const [is, wanted] = [digestOf(first.bytes), digestOf(second.bytes)];
        assert.match(error.message, new RegExp(`tag ${tag} is ${is}; expected ${wanted}\\.`));
        return true;
      });
      assert.deepEqual(await real.manifest(tag), first);
    });

    it("says so where the image to tag, or to read, is not there", async () => {
      const nothing = digestOf(Buffer.from("nothing"));
      const expected = new RegExp(`${nothing} does not exist.*; expected the image that was`);
      await assert.rejects(registry.tag(nothing, fresh("dev")), expected);
      await assert.rejects(registry.labels(nothing), expected);
    });

    describe("with reports", () => {
      const known = (answer: ScanAnswer): Scan => {
        assert.ok(answer.state === "known", JSON.stringify(answer));
        return answer.scan;
      };
      const find = (digest: string) => findScan(real.location, digest, "report");
      const idOf = ({ bytes }: Manifest): string =>
        (JSON.parse(bytes.toString()) as { config: { digest: string } }).config.digest;

      for (const [name, family] of Object.entries(FAMILIES)) {
        it(`keeps the latest that was attached to an image (${name})`, async () => {
          const image = await pushImage(real, family, fresh("build"));
          const digest = digestOf(image.bytes);
          const none = await find(digest);
          assert.ok(none.state === "missing" && none.says === "missing: no report is attached");
          const report = trivyReport(idOf(image), { "CVE-2026-1": "HIGH" });
          const { artifact } = await attachReport(real.location, digest, report);
          assert.deepEqual(known(await find(digest)), {
            by: "Trivy",
            at: new Date("2026-11-21T10:00:00.5Z"),
            findings: [{ id: "CVE-2026-1", severity: "high", in: "stdlib" }],
          });
          // The same again, then another.
          const again = await attachReport(real.location, digest, report);
          assert.equal(again.artifact, artifact);
          assert.equal((await registry.referrers(digest, REPORT_TYPE)).length, 1);
          const later = trivyReport(idOf(image), {}, "2026-11-22T10:00:00Z");
          await attachReport(real.location, digest, later);
          assert.deepEqual(known(await find(digest)).findings, []);
          assert.equal((await registry.referrers(digest, REPORT_TYPE)).length, 2);
          assert.deepEqual(await registry.referrers(digest, "application/vnd.example"), []);
          // The image is what it was.
          assert.deepEqual(await registry.manifest(digest), {
            bytes: new Uint8Array(image.bytes),
            mediaType: family.image,
          });
        });

        it(`asks for one of each platform of an index (${name})`, async () => {
          const build = fresh("build");
          const index = await pushIndex(real, family, build);
          const digest = digestOf(index.bytes);
          const attach = async (platform: string, vulnerabilities: Record<string, string>) => {
            const image = await real.manifest(`${build}-${platform}`);
            const report = trivyReport(idOf(image), vulnerabilities);
            const { image: subject } = await attachReport(real.location, digest, report);
            assert.equal(subject, digestOf(image.bytes));
          };
          await attach("amd64", { "CVE-2026-1": "LOW" });
          const half = await find(digest);
          assert.ok(half.state === "missing" && /one of its platforms/.test(half.says));
          await attach("arm64", { "CVE-2026-2": "CRITICAL" });
          const ids = known(await find(digest)).findings.map(({ id }) => id);
          assert.deepEqual(ids, ["CVE-2026-1", "CVE-2026-2"]);
        });
      }

      it("refuses a report on another image, or none of Trivy's", async () => {
        const image = await pushImage(real, FAMILIES.OCI, fresh("build"));
        const other = await pushImage(real, FAMILIES.OCI, fresh("build"));
        const digest = digestOf(image.bytes);
        await assert.rejects(
          attachReport(real.location, digest, trivyReport(idOf(other), {})),
          new RegExp(
            `the report is about podinfo:45, which is ${idOf(other)}; expected ${digest} with the ` +
              `id ${idOf(image)}. Scan what was pushed: \`trivy image --format json `,
          ),
        );
        await assert.rejects(attachReport(real.location, digest, "{}"), /is not one of Trivy's/);
        assert.equal((await find(digest)).state, "missing");
      });

      it("reads what others have attached by the same type", async () => {
        const image = await pushImage(real, FAMILIES.OCI, fresh("build"));
        const digest = digestOf(image.bytes);
        const text = trivyReport(idOf(image), { "CVE-2026-7": "MEDIUM" });
        const bytes = new TextEncoder().encode(text);
        await attach(registry, digest, { type: "application/vnd.example", bytes, at: new Date(0) });
        assert.equal((await find(digest)).state, "missing");
        await attach(registry, digest, { type: REPORT_TYPE, bytes, at: new Date(0) });
        assert.equal(known(await find(digest)).findings[0]?.id, "CVE-2026-7");
        const broken = new TextEncoder().encode("{}");
        await attach(registry, digest, { type: REPORT_TYPE, bytes: broken, at: new Date() });
        const answer = await find(digest);
        assert.ok(answer.state === "missing" && answer.says.startsWith("unreadable"));
      });
    });

    if (kind === "ecr") {
      const server = () => real as EcrServer;
      afterEach(() => {
        server().failures = [];
      });

      it("tells a tag that another has just given to another image from a repeat", async () => {
        const tag = fresh("dev");
        const [mine, other] = [fresh("build"), fresh("build")];
        const { bytes } = await pushImage(real, FAMILIES.OCI, mine);
        const foreign = await pushImage(real, FAMILIES.OCI, other);
        server().beforePut = () => real.putManifest(foreign, tag);
        await assert.rejects(registry.tag(digestOf(bytes), tag), (error: Error) => {
          assert.ok(error instanceof TagConflictError);
          assert.match(error.message, new RegExp(`${tag} is ${digestOf(foreign.bytes)}`));
          return true;
        });
        assert.deepEqual(await real.manifest(tag), foreign);

        const again = fresh("dev");
        server().beforePut = () => real.putManifest({ bytes, mediaType: OCI_IMAGE }, again);
        await registry.tag(digestOf(bytes), again);
        assert.equal(await registry.resolve(again), digestOf(bytes));
      });

      it("reads every page of what refers to an image", async () => {
        const image = await pushImage(real, FAMILIES.OCI, fresh("build"));
        const digest = digestOf(image.bytes);
        const type = "application/vnd.example";
        for (const text of ["1", "2", "3"]) {
          const bytes = new TextEncoder().encode(text);
          await attach(registry, digest, { type, bytes, at: new Date(0) });
        }
        server().referrerPage = 2;
        assert.equal((await registry.referrers(digest, type)).length, 3);
      });

      it("gives what ECR's own scan has found, and says so while there is none", async () => {
        const build = fresh("build");
        const { bytes } = await pushIndex(real, FAMILIES.OCI, build);
        const find = () => findScan(real.location, digestOf(bytes));
        const none = await find();
        assert.ok(none.state === "missing" && /in eu-west-1 has not scanned/.test(none.says));
        const platforms = ["amd64", "arm64"].map((platform) => `${build}-${platform}`);
        await server().scanned(platforms[0] ?? "", "IN_PROGRESS");
        await server().scanned(platforms[1] ?? "", "COMPLETE", [
          { name: "CVE-2026-1", severity: "CRITICAL" },
          { name: "CVE-2026-2", severity: "INFORMATIONAL" },
        ]);
        const running = await find();
        assert.ok(running.state === "running" && /is scanning/.test(running.says));
        const other = await pushImage(real, FAMILIES.OCI, fresh("build"));
        await assert.rejects(
          findScan(real.location, digestOf(Buffer.from("nothing"))),
          /does not exist in eu-west-1/,
        );
        await server().scanned(digestOf(other.bytes), "COMPLETE", [
          { name: "CVE-2026-1", severity: "HIGH" },
        ]);
        assert.deepEqual(await findScan(real.location, digestOf(other.bytes)), {
          state: "known",
          scan: {
            by: "ECR",
            at: undefined,
            findings: [{ id: "CVE-2026-1", severity: "high", in: undefined }],
          },
        });
      });

      it("reads what the whole registry is set to", async () => {
        assert.deepEqual(await readEcrSettings(REGION, "podinfo"), {
          replication: [],
          scanning: { type: "BASIC", rules: [] },
          hasOthers: false,
        });
        const client = new ecr.ECRClient(server().clientConfig());
        const rule = {
          destinations: [{ region: "us-east-1", registryId: "123456789012" }],
          repositoryFilters: [{ filter: "other/", filterType: "PREFIX_MATCH" as const }],
        };
        const replicationConfiguration = { rules: [rule] };
        await client.send(new ecr.PutReplicationConfigurationCommand({ replicationConfiguration }));
        await client.send(
          new ecr.PutRegistryScanningConfigurationCommand({ scanType: "ENHANCED", rules: [] }),
        );
        await client.send(new ecr.CreateRepositoryCommand({ repositoryName: "other/shop" }));
        assert.deepEqual(await readEcrSettings(REGION, "podinfo"), {
          replication: [rule],
          scanning: { type: "ENHANCED", rules: [] },
          hasOthers: true,
        });
      });

      it("tries again while ECR throttles, and says so when it goes on", async () => {
        const build = fresh("build");
        const { bytes } = await pushImage(real, FAMILIES.OCI, build);
        server().failures = ["ThrottlingException", "ThrottlingException"];
        assert.equal(await registry.resolve(build), digestOf(bytes));
        assert.deepEqual(server().failures, []);
        server().failures = Array.from({ length: 9 }, () => "ThrottlingException");
        await assert.rejects(
          registry.resolve(build),
          /ECR in eu-west-1 throttles this account after 3 attempts .*again in a minute/,
        );
      });

      it("says what to do about credentials that have expired, are wrong, or may not", async () => {
        const says = async (failure: string, expected: RegExp) => {
          server().failures = Array.from({ length: 9 }, () => failure);
          await assert.rejects(openRegistry(real.location).resolve("build-1"), (error: Error) => {
            assert.ok(error instanceof RegistryError);
            assert.match(error.message, expected);
            return true;
          });
        };
        await says("ExpiredTokenException", /credentials have expired .*Log in again/);
        await says("UnrecognizedClientException", /does not accept the credentials.*AWS_PROFILE/);
        await says("AccessDeniedException", /ECR in eu-west-1 refuses access .*docs\/aws\.md/);
        await says("ServerException", /cannot be asked: ServerException/);
      });

      it("says so where there are no credentials, or nothing answers", async () => {
        const { AWS_ENDPOINT_URL_ECR: url } = process.env;
        const nowhere = { HOME: "/nonexistent", AWS_EC2_METADATA_DISABLED: "true" };
        for (const key of Object.keys(process.env)) {
          if (key.startsWith("AWS_")) Reflect.deleteProperty(process.env, key);
        }
        Object.assign(process.env, nowhere, { AWS_ENDPOINT_URL_ECR: url });
        const open = () => openRegistry(real.location);
        await assert.rejects(open().resolve("build-1"), /no AWS credentials are found .*Log in/);
        Object.assign(process.env, server().environment, {
          AWS_ENDPOINT_URL_ECR: "http://127.0.0.1:1",
        });
        await assert.rejects(open().resolve("build-1"), /cannot be reached: ECONNREFUSED/);
      });

      it("says so where an image is in another region only", async () => {
        const build = fresh("build");
        const { bytes } = await pushImage(real, FAMILIES.OCI, build);
        const far = openRegistry(locationIn("eu-central-1"));
        const other = new ecr.ECRClient(server().clientConfig("eu-central-1"));
        // Before replication has made the repository, and after.
        for (const make of [false, true]) {
          const command = new ecr.CreateRepositoryCommand({ repositoryName: "podinfo" });
          if (make) await other.send(command);
          assert.equal(await far.resolve(build), undefined);
          await assert.rejects(
            far.tag(digestOf(bytes), fresh("dr")),
            /eu-central-1\.amazonaws\.com\/podinfo: sha256:\w+ does not exist in eu-central-1; .*replication/,
          );
        }
      });
    }
  });
}

const OCI_IMAGE = FAMILIES.OCI.image;
