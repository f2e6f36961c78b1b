/**
 * The number of the state's layout: names, parents and type tokens of the resources. The program
 * writes it into its outputs, so that a former program is not run on a state that it does not know:
 * it would make anew what it does not find, and delete what it does not know. Raise it with each
 * change after which a former program would do that, also where an alias serves the present one.
 */
export const STATE_LAYOUT = 1;
