import type { Context, Report } from "./context";
import { deploy, type DeployOptions } from "./deploy";
import { request, type RequestOptions } from "./request";

/** `baton promote ENV`: request and deploy in one; where people's words are missing, it waits. */
export async function promote(
  context: Context,
  environment: string,
  options: RequestOptions & DeployOptions,
): Promise<Report> {
  const requested = await request(context, environment, options);
  if (requested.gate !== "passes") {
    context.print("Run the same command again once that is settled.");
    return { ...requested, outcome: requested.gate === "waits" ? "waiting" : "refused" };
  }
  return { ...(await deploy(context, environment, options)), card: requested.card };
}
