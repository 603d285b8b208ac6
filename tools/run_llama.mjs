// Run GGUF files in llama.cpp: what it calls each, and the tokens that it answers to a prompt with, the likeliest each.
//
//     npm install node-llama-cpp
//     node tools/run_llama.mjs FILE.gguf...
//
// The package brings llama.cpp's library along; it is looked for from the working folder. One line a file.
import {createRequire} from "node:module";
import {join} from "node:path";
import {pathToFileURL} from "node:url";

if (process.argv.length < 3) {
    console.error("usage: node tools/run_llama.mjs FILE.gguf...");
    process.exit(2);
}
const installed = createRequire(join(process.cwd(), "anything.js")).resolve("node-llama-cpp");
const {getLlama} = await import(pathToFileURL(installed));
const llama = await getLlama({gpu: false, build: "never", logLevel: "error"});
for (const path of process.argv.slice(2)) {
    const model = await llama.loadModel({modelPath: path});
    const context = await model.createContext({contextSize: 256});
    const answer = [];
    for await (const token of context.getSequence().evaluate(model.tokenize("abc"), {temperature: 0})) {
        if (answer.push(token) === 8) break;
    }
    console.log(`${path}: ${model.typeDescription}; ${answer.join(" ")}`);
    await context.dispose();
    await model.dispose();
}
process.exit(0);
