import * as assert from "node:assert/strict";
import * as fc from "fast-check";
import {
  checkCandidate,
  checkRequest,
  hotfixFromOf,
  type ReleaseCandidate,
  type ReleaseRequest,
  type TagFacts,
} from "../../release/eligibility";
import { formatProblems } from "../../release/problem";

const DIGEST = `sha256:${"a".repeat(64)}`;
const OTHER = `sha256:${"b".repeat(64)}`;

const qa: ReleaseRequest = {
  environment: "qa",
  upstream: "dev",
  versioned: false,
  imageTag: "dev-45",
};
const prod: ReleaseRequest = {
  environment: "prod",
  upstream: "stage",
  versioned: true,
  imageTag: "stage-45",
  version: "v1.4.0",
};
const dr: ReleaseRequest = {
  environment: "dr",
  upstream: "prod",
  versioned: true,
  imageTag: "prod-v1.4.0",
};

/** Build 46, which qa has verified and stage has not seen. */
const hotfix: ReleaseRequest = {
  ...prod,
  hotfixFrom: "qa",
  imageTag: "qa-46",
  version: "v1.4.1",
};

function accepted(request: ReleaseRequest): ReleaseCandidate {
  const checked = checkRequest(request);
  if ("problems" in checked) assert.fail(formatProblems(checked.problems));
  return checked.ok;
}

function refusal(request: ReleaseRequest): string {
  const checked = checkRequest(request);
  return "problems" in checked ? formatProblems(checked.problems) : assert.fail("accepted");
}

function factRefusal(request: ReleaseRequest, facts: TagFacts): string {
  const checked = checkCandidate(accepted(request), facts);
  return "problems" in checked ? formatProblems(checked.problems) : assert.fail("accepted");
}

describe("a request", () => {
  it("earns its environment's tag for the same build", () => {
    assert.equal(accepted(qa).earnedTag, "qa-45");
    const dev = { environment: "dev", versioned: false, imageTag: "build-45" };
    assert.equal(accepted(dev).earnedTag, "dev-45");
  });

  it("earns a tag by its version where releases are versioned", () => {
    assert.equal(accepted(prod).earnedTag, "prod-v1.4.0");
    assert.deepEqual(
      [accepted(dr).earnedTag, accepted(dr).version],
      ["dr-v1.4.0", "v1.4.0"],
      "dr takes the version from prod's tag",
    );
  });

  it("is refused for a tag of the wrong giver", () => {
    assert.equal(
      refusal({ ...qa, imageTag: "build-45" }),
      "qa: baton:imageTag is build-45; expected a tag that dev has earned, such as dev-45. " +
        "Deploy and verify it in dev first, then copy that stack's earnedTag output.",
    );
    assert.match(refusal({ ...qa, imageTag: "latest" }), /expected a tag that dev has earned/);
    assert.match(refusal({ ...prod, imageTag: "qa-45" }), /expected a tag that stage has earned/);
  });

  it("is refused without a valid version where one is asked for", () => {
    assert.match(refusal({ ...prod, version: undefined }), /baton:version is not set/);
    assert.match(refusal({ ...prod, version: "1.4" }), /baton:version is 1\.4; expected v and/);
    assert.match(
      refusal({ ...dr, version: "v1.5.0" }),
      /v1\.5\.0; expected v1\.4\.0, which prod-v1\.4\.0 names/,
    );
  });

  it("is refused with a version where none is asked for", () => {
    assert.match(
      refusal({ ...qa, version: "v1.0.0" }),
      /baton:version is v1\.0\.0; expected no version/,
    );
  });

  it("goes back from its own tag under other settings, and from none that it does not take", () => {
    accepted({ ...qa, rollbackOf: "dev-45" });
    assert.match(
      refusal({ ...qa, rollbackOf: "qa-46" }),
      /rollbackOf is qa-46; expected a tag that dev/,
    );
  });

  it("for a hotfix takes the tag of the environment it names, and of no other", () => {
    assert.equal(accepted(hotfix).earnedTag, "prod-v1.4.1");
    assert.equal(
      refusal({ ...hotfix, imageTag: "stage-46" }),
      "prod: baton:imageTag is stage-46; expected a tag that qa has earned, such as qa-45. " +
        "Deploy and verify it in qa first, then copy that stack's earnedTag output.",
    );
    assert.match(
      refusal({ ...hotfix, hotfixFrom: undefined }),
      /imageTag is qa-46; expected a tag that stage has earned/,
    );
  });

  it("goes back from a hotfix, and to one", () => {
    accepted({ ...prod, rollbackOf: "qa-46" });
    accepted({ ...hotfix, rollbackOf: "stage-45" });
    accepted({ ...hotfix, rollbackOf: "qa-47" });
    for (const rollbackOf of ["prod-v1.4.1", "build-46", "hotfix"]) {
      assert.match(
        refusal({ ...hotfix, rollbackOf }),
        new RegExp(`rollbackOf is ${rollbackOf}; expected a tag that stage has earned`),
      );
    }
    const dev = { environment: "dev", versioned: false, imageTag: "build-45" };
    accepted({ ...dev, rollbackOf: "build-46" });
    assert.match(refusal({ ...dev, rollbackOf: "qa-46" }), /expected a build's tag/);
    assert.match(
      refusal({ ...prod, imageTag: "qa-46", rollbackOf: "stage-45" }),
      /imageTag is qa-46; expected a tag that stage has earned/,
    );
  });

  it("tells a hotfix by its tag", () => {
    assert.equal(hotfixFromOf("qa-46", "stage"), "qa");
    assert.equal(hotfixFromOf("stage-46", "stage"), undefined);
    assert.equal(hotfixFromOf("build-46", undefined), undefined);
  });

  it("names all its problems at once", () => {
    const text = refusal({ ...prod, imageTag: "qa-45", version: "1", rollbackOf: "x" });
    assert.equal(text.split("\n").length, 3, text);
  });
});

describe("a candidate", () => {
  it("is released when its upstream has earned the tag and nothing contradicts", () => {
    const checked = checkCandidate(accepted(qa), { imageTag: DIGEST, earnedTag: undefined });
    assert.deepEqual(checked, {
      ok: {
        imageTag: "dev-45",
        digest: DIGEST,
        version: undefined,
        earnedTag: "qa-45",
        rollbackOf: undefined,
      },
    });
  });

  it("is refused when the tag does not exist", () => {
    const facts = { imageTag: undefined, earnedTag: undefined };
    assert.match(
      factRefusal(qa, facts),
      /dev-45; expected a tag that exists.*dev has not earned it/,
    );
  });

  it("is refused when nobody has earned the hotfix's tag", () => {
    assert.match(
      factRefusal(hotfix, { imageTag: undefined, earnedTag: undefined }),
      /qa-46; expected a tag that exists in the registry\. qa has not earned it/,
    );
  });

  it("is refused when the pin names other bytes", () => {
    const facts = { imageTag: DIGEST, earnedTag: undefined };
    const text = factRefusal({ ...qa, imageDigest: OTHER }, facts);
    assert.match(text, new RegExp(`imageDigest is ${OTHER}; expected ${DIGEST}`));
  });

  it("is refused when its version names another image already", () => {
    const text = factRefusal(prod, { imageTag: DIGEST, earnedTag: OTHER });
    assert.match(text, /baton:version is v1\.4\.0;.*prod-v1\.4\.0.*give a new version/);
  });

  it("is refused when its build number names another image already", () => {
    const text = factRefusal(qa, { imageTag: DIGEST, earnedTag: OTHER });
    assert.match(text, /baton:imageTag is dev-45;.*qa-45.*Tags never move/);
  });

  it("goes back only to what this environment has verified", () => {
    const back = { ...qa, rollbackOf: "dev-46" };
    assert.match(
      factRefusal(back, { imageTag: DIGEST, earnedTag: undefined }),
      /a release that qa has verified before/,
    );
    const checked = checkCandidate(accepted(back), { imageTag: DIGEST, earnedTag: DIGEST });
    assert.ok("ok" in checked);
  });

  it("is never released with a digest that a fact contradicts", () => {
    const digest = fc.constantFrom(DIGEST, OTHER, undefined);
    const pin = fc.constantFrom(DIGEST, OTHER, undefined);
    const rollbackOf = fc.constantFrom("dev-46", undefined);
    fc.assert(
      fc.property(digest, digest, pin, rollbackOf, (imageTag, earnedTag, imageDigest, leaving) => {
        const candidate = accepted({ ...qa, imageDigest, rollbackOf: leaving });
        const checked = checkCandidate(candidate, { imageTag, earnedTag });
        const eligible =
          imageTag !== undefined &&
          (imageDigest ?? imageTag) === imageTag &&
          (leaving === undefined ? (earnedTag ?? imageTag) === imageTag : earnedTag === imageTag);
        assert.equal("ok" in checked, eligible);
        if ("ok" in checked) assert.equal(checked.ok.digest, imageTag);
      }),
    );
  });
});
