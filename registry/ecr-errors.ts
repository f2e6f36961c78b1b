import { RegistryError } from "./errors";

/** https://docs.aws.amazon.com/AmazonECR/latest/APIReference/CommonErrors.html, and STS's own. */
const EXPIRED = /^(ExpiredToken(Exception)?|RequestExpired|TokenRefreshRequired)$/;
const INVALID =
  /^(UnrecognizedClient(Exception)?|InvalidClientTokenId|InvalidSignature(Exception)?|SignatureDoesNotMatch|IncompleteSignature|MissingAuthenticationToken(Exception)?)$/;
/** What the SDK's credential providers throw: nothing found, or a sign-on that is over. */
const NO_CREDENTIALS = /^(CredentialsProviderError|TokenProviderError)$/;
const DENIED = /^(AccessDenied(Exception)?|NotAuthorized)$/;
const THROTTLED = /^(Throttl|TooManyRequests|RequestLimitExceeded|RequestThrottled|SlowDown)/;
/** What Node says of a connection that did not come about. */
const UNREACHABLE = /^(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|EHOSTUNREACH|ENETUNREACH)$/;

interface AwsError extends Error {
  readonly code?: string;
  readonly $metadata?: { readonly httpStatusCode?: number; readonly attempts?: number };
}

/** Why ECR gave no answer, and what to do about it. No credential is in any of these messages. */
export function ecrError(error: Error, repository: string, region: string): RegistryError {
  if (error instanceof RegistryError) return error;
  const { name, message, code = "", $metadata = {} } = error as AwsError;
  const said = `${name}: ${message}`.replace(/\.$/, "");
  const say = (what: string, fix: string) => new RegistryError(`${repository}: ${what}. ${fix}.`);
  const again = "and run the same command again";

  if (EXPIRED.test(name) || (NO_CREDENTIALS.test(name) && /expired/i.test(message))) {
    const fix = `Log in again (\`aws sso login\`, or a new run of the pipeline's job), ${again}`;
    return say(`the AWS credentials have expired (${said}); expected valid ones`, fix);
  }
  if (NO_CREDENTIALS.test(name)) {
    const fix = `Log in (\`aws sso login\`), set AWS_PROFILE, or let the job assume its role, ${again}`;
    return say(`no AWS credentials are found (${said}); expected some`, fix);
  }
  if (INVALID.test(name)) {
    const fix = `Check AWS_PROFILE, the AWS_* variables and this machine's clock, ${again}`;
    return say(`AWS in ${region} does not accept the credentials (${said})`, fix);
  }
  if (DENIED.test(name)) {
    const fix = `Give the role what docs/aws.md lists for it, or use another role, ${again}`;
    return say(`ECR in ${region} refuses access (${said})`, fix);
  }
  if (THROTTLED.test(name) || $metadata.httpStatusCode === 429) {
    const tried = $metadata.attempts === undefined ? "" : ` after ${$metadata.attempts} attempts`;
    const fix = "Run the same command again in a minute; AWS_MAX_ATTEMPTS allows more attempts";
    return say(`ECR in ${region} throttles this account${tried} (${said})`, fix);
  }
  if (UNREACHABLE.test(code) || name === "TimeoutError") {
    const fix = `Check the network, and that ${region} is a region of AWS, ${again}`;
    return say(`ECR in ${region} cannot be reached: ${code || said}`, fix);
  }
  return say(`ECR in ${region} cannot be asked: ${said}`, `Settle that, ${again}`);
}
