//! The owner's file with every setting, for `init`.

/// The file's text. Settings that have one default for every machine stand in it with that default; those whose default
/// depends on the machine, or that have none, are commented out.
pub fn example() -> &'static str {
    EXAMPLE
}

const EXAMPLE: &str = r#"# What this machine offers to the pool, and for how much.
#
# `modchain-agent reload` (or SIGHUP) takes changes up: prices, limits and what is allowed hold for the jobs that come after it;
# what runs keeps the prices that it began with. What needs a restart says so here. A file with a mistake changes nothing, and
# the line is named. `modchain-agent info` shows what follows from it.

# Where the orchestrator listens; joining has noted that. Needs a restart.
#orchestrator = "pool.example:7443"

# The folder with this node's key and certificates; joining has put them below the data. Needs a restart.
#identity = "/var/lib/modchain/agent/identity"

# Where attempts, results and modules are kept; a folder of mode 0700. Needs a restart.
#data = "/var/lib/modchain/agent"

# Where this node is, in your own words; jobs can ask for it.
#region = "eu-west"

# Kinds of jobs that may run here. Containers and language models are offered only while a container engine and a model server
# are found. Adding one needs a restart, leaving one out does not.
adapters = ["wasm", "docker", "llm"]

# Prices, in the orchestrator's money. A job is never paid more than its client's limit.
[prices]
core_hour = "0.03"              # a core that a job reserves, for an hour
gib_hour = "0.004"              # a GiB of memory that it reserves, for an hour
million_prompt_tokens = "0.10"  # a million tokens that a language model reads
million_output_tokens = "0.40"  # a million tokens that it writes
minimum = "0.0010"              # the least that a job that ran pays

# A GPU for an hour, by model as `modchain-agent info` shows it; "*" is every other.
[prices.gpu_hour]
"*" = "1.00"
#"NVIDIA H100 80GB HBM3" = "2.50"

# What all jobs together may use; never more than the machine has.
[limits]
#slots = 8                      # jobs at once, 1 to 48; without it twice the cores
#cpus = "4"                     # cores, such as 4 or "1.5"; without it all
#memory = "12GiB"               # without it all but a tenth, 512 MiB at least (half of a small machine)
#disk = "50GiB"                 # without it nine tenths of what is free at the start

# Containers. Every job is shut in: no network, a read-only root, no capabilities, limits on everything.
[docker]
#host = "unix:///var/run/docker.sock"  # where the engine listens; without it as DOCKER_HOST says. Needs a restart
images = ["*"]                  # images that may run: names, or beginnings of names that end with *
pull = true                     # whether images that are not here are pulled
image_size_max = "20GiB"        # the largest image that is pulled
writable_root = false           # whether a job that asks for it may write to its own root file system
network = false                 # whether a job that asks for it gets a network: it can then reach whatever this machine reaches

# Language models, by an Ollama server on this machine.
[llm]
#url = "http://127.0.0.1:11434" # where it listens; without it as OLLAMA_HOST says. Needs a restart
pull = []                       # models that jobs may have pulled: names, or beginnings of names that end with *
#keep_alive = "5m"              # how long a model stays in memory after a job; without it as the server does
#context_tokens = 4096          # what prompt and answer may have together; 0 leaves it to the model and the server

# GPUs.
[gpus]
offer = true                    # true, false, or a list of their numbers or UUIDs: [0, "GPU-6f1d…"]
#library = "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"  # NVIDIA's management library. Needs a restart

# Labels that jobs can ask for. Printable ASCII without space, comma or =.
[labels]
#pool = "default"
"#;

#[cfg(test)]
mod tests {
    use super::super::file::File;
    use super::super::{Config, Settings};
    use super::*;

    fn load(text: &str) -> Config {
        let settings = Settings { data: Some("/data".into()), ..Settings::default() };
        let file = File::read(text).unwrap_or_else(|error| panic!("agent.toml:{error}"));
        Config::join(None, None, &settings, file).expect("makes sense")
    }

    #[test]
    fn what_it_says_is_what_holds_without_it() {
        assert_eq!(load(example()), load(""));
    }

    #[test]
    fn every_setting_stands_in_it_and_each_that_is_commented_out_is_a_good_one() {
        let is_setting = |line: &str| {
            let key = line.split(" = ").next().unwrap_or_default();
            line.contains(" = ") && key.chars().all(|c| c.is_ascii_alphanumeric() || "_\"* ".contains(c))
        };
        let uncommented: Vec<&str> = example()
            .lines()
            .map(|line| line.strip_prefix('#').filter(|rest| is_setting(rest)).unwrap_or(line))
            .collect();
        let text = uncommented.join("\n");
        let read = File::read(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        // One that is missing from the example is `None` here, or the pattern no longer names every field.
        let File { orchestrator, identity, data, region, adapters, prices, limits, docker, llm, gpus, labels } = read;
        assert!(orchestrator.is_some() && identity.is_some() && data.is_some() && region.is_some());
        assert!(adapters.is_some() && !labels.0.is_empty());
        let super::super::file::Prices {
            core_hour,
            gib_hour,
            gpu_hour,
            million_prompt_tokens,
            million_output_tokens,
            minimum,
        } = prices;
        assert!(core_hour.is_some() && gib_hour.is_some() && gpu_hour.is_some() && minimum.is_some());
        assert!(million_prompt_tokens.is_some() && million_output_tokens.is_some());
        let super::super::file::FileLimits { slots, cpus, memory, disk } = limits;
        assert!(slots.is_some() && cpus.is_some() && memory.is_some() && disk.is_some());
        let super::super::file::Docker { host, images, pull, image_size_max, writable_root, network } = docker;
        assert!(host.is_some() && images.is_some() && pull.is_some() && image_size_max.is_some());
        assert!(writable_root.is_some() && network.is_some());
        let super::super::file::Llm { url, pull, keep_alive, context_tokens } = llm;
        assert!(url.is_some() && pull.is_some() && keep_alive.is_some() && context_tokens.is_some());
        let super::super::file::Gpus { offer, library } = gpus;
        assert!(offer.is_some() && library.is_some());
    }
}
